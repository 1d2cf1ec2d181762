//! The mounts of a Dataset: each a source at a path of the tree.
//!
//! [`MountOptions`] are the configuration; a [`Mount`] is a validated one: its source is open, its globs are
//! compiled, its path is checked. Mounts are in the order of the catalog's sources, which is also their precedence
//! where two sources have a file of the same path: the deepest path first, else in the configured order.

use std::fmt;
use std::sync::Arc;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use millpond_catalog::SourceInfo;

use crate::fetch::{Origin, OriginOptions};
use crate::metrics::OriginMetrics;
use crate::source::{Clients, Environment, Source, SourceError, SourceOptions, SourceUrl};

/// The limit of the catalog.
const MAX_MOUNTS: usize = 1_024;

/// The kernel's NAME_MAX and PATH_MAX.
const MAX_NAME_BYTES: usize = 255;
const MAX_PATH_BYTES: usize = 4_095;

/// One source of a Dataset, and the path of its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// The source of the files.
    pub source: SourceOptions,
    /// The directory of the tree that its files appear in: `/`, or `/train`.
    pub path: String,
    /// A name for messages; `None`: it has none.
    pub name: Option<String>,
    /// Globs of the keys to include, relative to the source's prefix (`**/*.jpg`); `*` does not match a `/`. Empty:
    /// all.
    pub include: Vec<String>,
    /// Globs of keys to leave out, even if included.
    pub exclude: Vec<String>,
}

impl MountOptions {
    /// Returns a mount of a complete source at the root of the tree.
    pub fn at_root(source: SourceOptions) -> Self {
        Self {
            source,
            path: "/".to_owned(),
            name: None,
            include: Vec::new(),
            exclude: Vec::new(),
        }
    }
}

/// Identifies a mount in messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountId {
    /// Its position in the options.
    pub index: usize,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// The source's URL, without any credentials.
    pub url: String,
}

impl MountId {
    fn of(index: usize, options: &MountOptions) -> Self {
        let url = SourceUrl::parse(&options.source.url).map_or_else(
            |_invalid| without_credentials(&options.source.url),
            |url| url.to_string(),
        );
        Self {
            index,
            name: options.name.clone(),
            url,
        }
    }
}

impl fmt::Display for MountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, name, url } = self;
        write!(f, "mounts[{index}]")?;
        if let Some(name) = name {
            write!(f, " {name:?}")?;
        }
        write!(f, " ({url})")
    }
}

/// Why the mounts are invalid.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// A source cannot be opened.
    #[error("{mount} cannot be used")]
    Source {
        /// Which mount.
        mount: Arc<MountId>,
        /// Why.
        #[source]
        source: SourceError,
    },
    /// A glob is invalid.
    #[error(
        "{mount}: {field} has the glob {glob:?}, which cannot be used; write it relative to the source, as **/*.jpg"
    )]
    Glob {
        /// Which mount.
        mount: Arc<MountId>,
        /// `include` or `exclude`.
        field: &'static str,
        /// The glob.
        glob: String,
        /// What is wrong with it; `None`: it is well formed, and can match nothing.
        #[source]
        source: Option<globset::Error>,
    },
    /// A path cannot be a directory of the tree.
    #[error("{mount}: the path {path:?} {problem}; write / or /NAME")]
    Path {
        /// Which mount.
        mount: Arc<MountId>,
        /// The path.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// One source is mounted twice at one path.
    #[error("{mount} has the source and the path of {other}; remove one of them")]
    Twice {
        /// The later one.
        mount: Arc<MountId>,
        /// The earlier one.
        other: Arc<MountId>,
    },
    /// There are none, or too many.
    #[error("{count} mounts are given; give 1 to {MAX_MOUNTS}")]
    Count {
        /// How many there are.
        count: usize,
    },
}

impl MountError {
    /// Returns the mount that is invalid; `None`: all of them together are.
    pub fn mount(&self) -> Option<&MountId> {
        match self {
            Self::Source { mount, .. }
            | Self::Glob { mount, .. }
            | Self::Path { mount, .. }
            | Self::Twice { mount, .. } => Some(mount),
            Self::Count { .. } => None,
        }
    }
}

/// A validated mount.
#[derive(Debug)]
pub(super) struct Mount {
    pub(super) id: Arc<MountId>,
    pub(super) options: MountOptions,
    pub(super) info: SourceInfo,
    pub(super) source: Arc<Source>,
    pub(super) origin: Origin,
    filter: Filter,
}

impl Mount {
    /// Returns whether a key of the source is part of the tree.
    pub(super) fn includes(&self, key: &str) -> bool {
        let relative = key.strip_prefix(self.info.prefix.as_str()).unwrap_or(key);
        self.filter.matches(relative)
    }
}

/// What context a mount needs.
#[derive(Clone, Debug)]
pub(super) struct MountContext {
    pub(super) environment: Environment,
    pub(super) clients: Clients,
    pub(super) origin: OriginOptions,
    pub(super) metrics: OriginMetrics,
}

/// Opens all mounts, reusing those of `known` that did not change. Blocks: a source may be a directory.
pub(super) fn open_all(
    mounts: &[MountOptions],
    context: &MountContext,
    known: &[Arc<Mount>],
) -> Result<Arc<[Arc<Mount>]>, MountError> {
    if mounts.is_empty() || mounts.len() > MAX_MOUNTS {
        return Err(MountError::Count { count: mounts.len() });
    }
    let mut opened: Vec<Arc<Mount>> = Vec::with_capacity(mounts.len());
    for (index, options) in mounts.iter().enumerate() {
        let id = Arc::new(MountId::of(index, options));
        let same = known
            .iter()
            .find(|known| known.id == id && known.options == *options);
        let mount = match same {
            Some(known) => Arc::clone(known),
            None => Arc::new(open(id, options, context)?),
        };
        if let Some(other) = opened.iter().find(|other| other.info == mount.info) {
            return Err(MountError::Twice {
                mount: Arc::clone(&mount.id),
                other: Arc::clone(&other.id),
            });
        }
        opened.push(mount);
    }
    opened.sort_by_key(|mount| std::cmp::Reverse(depth(&mount.info.path)));
    Ok(opened.into())
}

fn open(id: Arc<MountId>, options: &MountOptions, context: &MountContext) -> Result<Mount, MountError> {
    let path = checked_path(&options.path).map_err(|problem| MountError::Path {
        mount: Arc::clone(&id),
        path: options.path.clone(),
        problem,
    })?;
    let filter = Filter::new(&id, options)?;
    let source = Source::open_in(&options.source, &context.environment, &context.clients);
    let source = Arc::new(source.map_err(|source| MountError::Source {
        mount: Arc::clone(&id),
        source,
    })?);
    Ok(Mount {
        id,
        options: options.clone(),
        info: SourceInfo {
            id: source.identity().to_owned(),
            prefix: source.prefix().to_owned(),
            path,
        },
        origin: Origin::new(
            Arc::clone(&source),
            context.origin.clone(),
            context.metrics.clone(),
        ),
        source,
        filter,
    })
}

fn depth(path: &str) -> usize {
    path.split('/').filter(|name| !name.is_empty()).count()
}

/// Returns the path as the catalog writes it: `` for the root, else `a/b`.
fn checked_path(path: &str) -> Result<String, &'static str> {
    let Some(relative) = path.strip_prefix('/') else {
        return Err("is not absolute");
    };
    let relative = relative.strip_suffix('/').unwrap_or(relative);
    if relative.is_empty() {
        return Ok(String::new());
    }
    if relative.len() > MAX_PATH_BYTES {
        return Err("is longer than 4,095 bytes");
    }
    for name in relative.split('/') {
        match name {
            "" => return Err("has an empty part"),
            "." | ".." => return Err("has a part '.' or '..'"),
            _ if name.len() > MAX_NAME_BYTES => return Err("has a part of more than 255 bytes"),
            _ if name.chars().any(char::is_control) => return Err("holds control characters"),
            _ => {}
        }
    }
    Ok(relative.to_owned())
}

/// Which keys of a source are part of the tree.
#[derive(Debug)]
struct Filter {
    /// `None`: all.
    include: Option<GlobSet>,
    exclude: GlobSet,
}

impl Filter {
    fn new(id: &Arc<MountId>, options: &MountOptions) -> Result<Self, MountError> {
        let include = match options.include.as_slice() {
            [] => None,
            globs => Some(compile(id, "include", globs)?),
        };
        let exclude = compile(id, "exclude", &options.exclude)?;
        Ok(Self { include, exclude })
    }

    fn matches(&self, relative: &str) -> bool {
        self.include
            .as_ref()
            .is_none_or(|include| include.is_match(relative))
            && !self.exclude.is_match(relative)
    }
}

fn compile(id: &Arc<MountId>, field: &'static str, globs: &[String]) -> Result<GlobSet, MountError> {
    let refused = |glob: &str, source| MountError::Glob {
        mount: Arc::clone(id),
        field,
        glob: glob.to_owned(),
        source,
    };
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        if glob.is_empty() || glob.starts_with('/') {
            return Err(refused(glob, None));
        }
        let built = GlobBuilder::new(glob).literal_separator(true).build();
        set.add(built.map_err(|source| refused(glob, Some(source)))?);
    }
    set.build()
        .map_err(|source| refused(&globs.join(" "), Some(source)))
}

/// Returns a URL that could not be parsed without the parts that may hold a secret.
fn without_credentials(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}/{path}")
}

#[cfg(test)]
mod tests;
