//! What kind of failure it is, for those who tell people what to do about it.

use super::OpenError;
use super::mounts::{MountError, MountId};
use super::reconfigure::ReconfigureError;
use super::refresh::RefreshError;
use crate::listing::ListError;
use crate::source::SourceError;

/// The kinds of failures of a source that a person does something different about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The source does not know the credentials, or does not let them in.
    AccessDenied,
    /// There is no such bucket, container or directory.
    SourceNotFound,
    /// A mount is described wrongly: its URL, an option, its path, a glob; or it can never be listed.
    InvalidSource,
    /// The source does not answer, or not well: it may do so later.
    Unreachable,
    /// No source's fault: this node's disk, or the end of the process.
    Other,
}

impl SourceError {
    /// What kind of failure it is.
    pub const fn kind(&self) -> FailureKind {
        match self {
            Self::Invalid { .. } => FailureKind::InvalidSource,
            Self::NotFound { .. } => FailureKind::SourceNotFound,
            Self::Denied { .. } => FailureKind::AccessDenied,
            Self::Unavailable { .. } => FailureKind::Unreachable,
        }
    }
}

impl ListError {
    /// What kind of failure it is.
    pub const fn kind(&self) -> FailureKind {
        match self {
            Self::Denied { .. } => FailureKind::AccessDenied,
            Self::NotFound { .. } => FailureKind::SourceNotFound,
            Self::Unsupported { .. } => FailureKind::InvalidSource,
            Self::Unavailable { .. } => FailureKind::Unreachable,
        }
    }
}

impl MountError {
    /// What kind of failure it is.
    pub const fn kind(&self) -> FailureKind {
        match self {
            Self::Source { source, .. } => source.kind(),
            Self::Glob { .. } | Self::Path { .. } | Self::Twice { .. } | Self::Count { .. } => {
                FailureKind::InvalidSource
            }
        }
    }
}

impl RefreshError {
    /// The error with its causes, on one line.
    pub fn describe(&self) -> String {
        millpond_process::with_causes(self)
    }

    /// What kind of failure it is.
    pub const fn kind(&self) -> FailureKind {
        match self {
            Self::List { source, .. } => source.kind(),
            Self::Build(_) | Self::Store(_) | Self::Stopped => FailureKind::Other,
        }
    }

    /// The mount that failed; `None`: none did.
    pub fn mount(&self) -> Option<&MountId> {
        match self {
            Self::List { mount, .. } => Some(mount),
            Self::Build(_) | Self::Store(_) | Self::Stopped => None,
        }
    }
}

impl ReconfigureError {
    /// The error with its causes, on one line.
    pub fn describe(&self) -> String {
        millpond_process::with_causes(self)
    }
}

impl OpenError {
    /// The error with its causes, on one line.
    pub fn describe(&self) -> String {
        millpond_process::with_causes(self)
    }

    /// What kind of failure it is.
    pub const fn kind(&self) -> FailureKind {
        match self {
            Self::Mount(error) => error.kind(),
            Self::Store(_) | Self::Catalogs { .. } | Self::Interrupted => FailureKind::Other,
        }
    }

    /// The mount that failed; `None`: none did.
    pub fn mount(&self) -> Option<&MountId> {
        match self {
            Self::Mount(error) => error.mount(),
            Self::Store(_) | Self::Catalogs { .. } | Self::Interrupted => None,
        }
    }
}
