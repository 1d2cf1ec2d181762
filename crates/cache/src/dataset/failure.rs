//! The kind of a failure, for callers that tell a user how to correct it.

use super::OpenError;
use super::mounts::{MountError, MountId};
use super::reconfigure::ReconfigureError;
use super::refresh::RefreshError;
use crate::listing::ListError;
use crate::source::SourceError;

/// The kinds of failures of a source, by what a user does about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The source rejects the credentials, or the access.
    AccessDenied,
    /// The bucket, container or directory does not exist.
    SourceNotFound,
    /// The configuration of a mount is invalid: its URL, an option, its path, a glob; or it can never be listed.
    InvalidSource,
    /// The source does not answer, or not correctly: a retry may help.
    Unreachable,
    /// Not a source's failure: this node's disk, or the shutdown of the process.
    Other,
}

impl SourceError {
    /// Returns the kind of the failure.
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
    /// Returns the kind of the failure.
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
    /// Returns the kind of the failure.
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
    /// Returns the error with its causes, on one line.
    pub fn describe(&self) -> String {
        millpond_process::with_causes(self)
    }

    /// Returns the kind of the failure.
    pub const fn kind(&self) -> FailureKind {
        match self {
            Self::List { source, .. } => source.kind(),
            Self::Build(_) | Self::Store(_) | Self::Stopped => FailureKind::Other,
        }
    }

    /// Returns the mount that failed; `None`: the failure is not a mount's.
    pub fn mount(&self) -> Option<&MountId> {
        match self {
            Self::List { mount, .. } => Some(mount),
            Self::Build(_) | Self::Store(_) | Self::Stopped => None,
        }
    }
}

impl ReconfigureError {
    /// Returns the error with its causes, on one line.
    pub fn describe(&self) -> String {
        millpond_process::with_causes(self)
    }
}

impl OpenError {
    /// Returns the error with its causes, on one line.
    pub fn describe(&self) -> String {
        millpond_process::with_causes(self)
    }

    /// Returns the kind of the failure.
    pub const fn kind(&self) -> FailureKind {
        match self {
            Self::Mount(error) => error.kind(),
            Self::Store(_) | Self::Catalogs { .. } | Self::Interrupted => FailureKind::Other,
        }
    }

    /// Returns the mount that failed; `None`: the failure is not a mount's.
    pub fn mount(&self) -> Option<&MountId> {
        match self {
            Self::Mount(error) => error.mount(),
            Self::Store(_) | Self::Catalogs { .. } | Self::Interrupted => None,
        }
    }
}
