//! The variables and files from which credentials come, as values: tests give their own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ini::Ini;

use super::SourceError;

/// Variables of a process, and what of its host a source may use. The default is isolated: nothing.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    reach: Reach,
}

/// What of this host a source may use.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reach {
    /// All that this process can: a person's own machine.
    Host,
    /// Nothing but directories below these.
    Directories(Vec<PathBuf>),
}

impl Default for Reach {
    fn default() -> Self {
        Self::Directories(Vec::new())
    }
}

impl std::fmt::Debug for Environment {
    /// Names only: the values are credentials.
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
    /// That of this process; what is not UTF-8 is left out.
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// Nothing of this process or its host, but the directories below these as sources of the kind `file`.
    pub fn isolated(directories: Vec<PathBuf>) -> Self {
        Self {
            variables: BTreeMap::new(),
            reach: Reach::Directories(directories),
        }
    }

    /// Whether sources may use nothing of this process.
    pub(super) fn is_isolated(&self) -> bool {
        self.reach != Reach::Host
    }

    /// Whether a directory may be a source, links followed.
    pub(super) fn may_open(&self, directory: &Path) -> bool {
        let Reach::Directories(allowed) = &self.reach else {
            return true;
        };
        // What is not there is judged as it is written, and then found missing.
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_missing| path.to_owned());
        let directory = real(directory);
        allowed.iter().any(|allowed| directory.starts_with(real(allowed)))
    }

    /// One variable, if it is set and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// All variables whose names start so, in the spelling of object_store's keys.
    pub(crate) fn starting_with(&self, prefix: &str) -> impl Iterator<Item = (String, &str)> {
        let prefix = prefix.to_owned();
        self.variables
            .iter()
            .filter(move |(name, value)| name.starts_with(&prefix) && !value.is_empty())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
    }

    /// What `~/.aws/config` and `~/.aws/credentials` say of a profile, in object_store's words.
    ///
    /// `wanted` is a profile that somebody asked for; without one it is `AWS_PROFILE`, else `default`. Only
    /// keys that stand in the files are understood: a profile that assumes a role, logs in through SSO or
    /// runs a program is refused if it was asked for, and left out if it is the default.
    pub(crate) fn aws_profile(&self, wanted: Option<&str>) -> Result<BTreeMap<String, String>, SourceError> {
        let asked_for = wanted.or_else(|| self.get("AWS_PROFILE"));
        let profile = asked_for.unwrap_or("default");
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
            let Some(ini) = self.ini(variable, usual, asked_for.is_some())? else {
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
        let Some(asked_for) = asked_for else {
            return Ok(understood(&settings));
        };
        let field = "aws_profile (or the variable AWS_PROFILE)".to_owned();
        if !found {
            return Err(SourceError::Invalid {
                field,
                problem: format!("there is no profile {asked_for:?} in the AWS configuration files"),
                fix: "name one that is there, or unset it".to_owned(),
            });
        }
        let settings_of_profile = understood(&settings);
        let other_ways = ["role_arn", "sso_session", "sso_start_url", "credential_process"];
        let other_way = other_ways.into_iter().find(|key| settings.contains_key(*key));
        match other_way {
            Some(key) if !settings_of_profile.contains_key("aws_access_key_id") => {
                Err(SourceError::Invalid {
                    field,
                    problem: format!(
                        "profile {asked_for:?} gets its credentials by {key}, which is not supported"
                    ),
                    fix: "export them: eval \"$(aws configure export-credentials --format env)\"".to_owned(),
                })
            }
            Some(_) | None => Ok(settings_of_profile),
        }
    }

    /// One of the files; `None` when it is not there.
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
            // Nobody asked for this file: without it there are other ways.
            Err(_) if !needed && self.get(variable).is_none() => return Ok(None),
            Err(error) => return Err(unreadable(error.to_string())),
        };
        // AWS's own tools take values as they stand: no escapes, no quotes.
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

/// The settings that mean something here, under object_store's names.
fn understood(settings: &BTreeMap<String, String>) -> BTreeMap<String, String> {
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
