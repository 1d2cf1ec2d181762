//! The variables and files that credentials come from, as values: tests pass their own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ini::Ini;

use super::SourceError;

/// Variables of a process, and what a source may use of its host. The default is isolated: nothing.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    reach: Reach,
}

/// What a source may use of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reach {
    /// Everything that this process can: one user's own machine.
    Host,
    /// Only directories below these.
    Directories(Vec<PathBuf>),
}

impl Default for Reach {
    fn default() -> Self {
        Self::Directories(Vec::new())
    }
}

impl std::fmt::Debug for Environment {
    /// Prints names only: the values are credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self {
            variables: variables.into_iter().collect(),
            reach: Reach::Host,
        }
    }
}

impl Environment {
    /// Returns this process's environment; variables that are not UTF-8 are left out.
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// Returns an environment that gives sources only the directories below these, for the kind `file`.
    pub fn isolated(directories: Vec<PathBuf>) -> Self {
        Self {
            variables: BTreeMap::new(),
            reach: Reach::Directories(directories),
        }
    }

    /// Returns whether sources may use nothing of this process.
    pub(super) fn is_isolated(&self) -> bool {
        self.reach != Reach::Host
    }

    /// Returns whether a directory may be a source, links followed.
    pub(super) fn may_open(&self, directory: &Path) -> bool {
        let Reach::Directories(allowed) = &self.reach else {
            return true;
        };
        // A missing path is compared as written, and reported as missing later.
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_missing| path.to_owned());
        let directory = real(directory);
        allowed.iter().any(|allowed| directory.starts_with(real(allowed)))
    }

    /// Returns one variable, if it is set and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Returns all variables with this prefix, in the spelling of object_store's keys.
    pub(crate) fn starting_with(&self, prefix: &str) -> impl Iterator<Item = (String, &str)> {
        let prefix = prefix.to_owned();
        self.variables
            .iter()
            .filter(move |(name, value)| name.starts_with(&prefix) && !value.is_empty())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
    }

    /// Returns the settings of a profile in `~/.aws/config` and `~/.aws/credentials`, under object_store's names.
    ///
    /// `wanted` is a profile that is named explicitly; without one it is `AWS_PROFILE`, else `default`. Only keys
    /// in the files are supported: a profile that assumes a role, logs in through SSO or runs a program is refused
    /// if it is named, and left out if it is the default.
    pub(crate) fn aws_profile(&self, wanted: Option<&str>) -> Result<BTreeMap<String, String>, SourceError> {
        let named = wanted.or_else(|| self.get("AWS_PROFILE"));
        let profile = named.unwrap_or("default");
        let mut found = false;
        let mut settings = BTreeMap::new();
        let sections = [
            (
                "AWS_CONFIG_FILE",
                ".aws/config",
                [format!("profile {profile}"), profile.to_owned()],
            ),
            (
                "AWS_SHARED_CREDENTIALS_FILE",
                ".aws/credentials",
                [profile.to_owned(), profile.to_owned()],
            ),
        ];
        for (variable, usual, names) in sections {
            let Some(ini) = self.ini(variable, usual, named.is_some())? else {
                continue;
            };
            let section = names.iter().find_map(|name| ini.section(Some(name.as_str())));
            let Some(section) = section else { continue };
            found = true;
            settings.extend(
                section
                    .iter()
                    .map(|(key, value)| (key.trim().to_owned(), value.to_owned())),
            );
        }
        let Some(named) = named else {
            return Ok(supported(&settings));
        };
        let field = "aws_profile (or the variable AWS_PROFILE)".to_owned();
        if !found {
            return Err(SourceError::Invalid {
                field,
                problem: format!("there is no profile {named:?} in the AWS configuration files"),
                fix: "name one that exists, or unset it".to_owned(),
            });
        }
        let settings_of_profile = supported(&settings);
        let other_ways = ["role_arn", "sso_session", "sso_start_url", "credential_process"];
        let other_way = other_ways.into_iter().find(|key| settings.contains_key(*key));
        match other_way {
            Some(key) if !settings_of_profile.contains_key("aws_access_key_id") => {
                Err(SourceError::Invalid {
                    field,
                    problem: format!(
                        "profile {named:?} gets its credentials by {key}, which is not supported"
                    ),
                    fix: "export them: eval \"$(aws configure export-credentials --format env)\"".to_owned(),
                })
            }
            Some(_) | None => Ok(settings_of_profile),
        }
    }

    /// Reads one of the files; `None` when it does not exist.
    fn ini(&self, variable: &str, usual: &str, needed: bool) -> Result<Option<Ini>, SourceError> {
        let path = match (self.get(variable), self.get("HOME")) {
            (Some(path), _) => PathBuf::from(path),
            (None, Some(home)) => PathBuf::from(home).join(usual),
            (None, None) => return Ok(None),
        };
        let unreadable = |problem: String| SourceError::Invalid {
            field: variable.to_owned(),
            problem: format!("failed to read {}: {problem}", path.display()),
            fix: "repair the file, or give the credentials by the environment".to_owned(),
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            // The file is optional: without it there are other ways.
            Err(_) if !needed && self.get(variable).is_none() => return Ok(None),
            Err(error) => return Err(unreadable(error.to_string())),
        };
        // As AWS's own tools: no escapes, no quotes.
        let options = ini::ParseOption {
            enabled_quote: false,
            enabled_escape: false,
            ..Default::default()
        };
        Ini::load_from_str_opt(&text, options)
            .map(Some)
            .map_err(|error| unreadable(error.to_string()))
    }
}

/// Returns the supported settings, under object_store's names.
fn supported(settings: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let names = [
        ("aws_access_key_id", "aws_access_key_id"),
        ("aws_secret_access_key", "aws_secret_access_key"),
        ("aws_session_token", "aws_session_token"),
        ("region", "aws_region"),
        ("endpoint_url", "aws_endpoint_url"),
    ];
    let mut known = BTreeMap::new();
    for (theirs, ours) in names {
        if let Some(value) = settings.get(theirs) {
            known.insert(ours.to_owned(), value.clone());
        }
    }
    known
}

#[cfg(test)]
mod tests;
