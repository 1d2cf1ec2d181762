//! Errors of volumes, as reported to the kubelet.

use std::io;
use std::path::PathBuf;

use millpond_fs::fuse::FuseError;
use millpond_fs::view::ViewError;

/// Errors of publishing and unpublishing.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A field of the request is invalid.
    #[error("{field}: {reason}")]
    Invalid {
        /// Name of the field.
        field: &'static str,
        /// What is wrong, and what is valid.
        reason: String,
    },
    /// The pod may not use the Dataset.
    #[error("{reason}")]
    Denied {
        /// Which pods are refused, and the field that would allow them.
        reason: String,
    },
    /// The volume is not published on this node.
    #[error("volume {volume} is not published at {}", path.display())]
    NotFound {
        /// Id of the volume.
        volume: String,
        /// Requested path.
        path: PathBuf,
    },
    /// The target has another volume, or the same with other parameters.
    #[error("{} is in use by another volume or with other parameters", target.display())]
    Exists {
        /// Path of the target.
        target: PathBuf,
    },
    /// Something is missing that may become available: a retry may succeed.
    #[error("{missing}")]
    NotReady {
        /// What is missing, and where to look.
        missing: String,
    },
    /// Not possible on this node: a retry cannot succeed.
    #[error("{reason}")]
    Impossible {
        /// Cause and fix.
        reason: String,
    },
    /// Mounting a view failed.
    #[error("failed to mount the volume")]
    View(#[from] ViewError),
    /// The FUSE mount failed.
    #[error("failed to serve the Dataset")]
    Fuse(#[from] FuseError),
    /// Another system call failed.
    #[error("failed to {action}")]
    System {
        /// Attempted action.
        action: &'static str,
        /// Error of the system.
        #[source]
        source: io::Error,
    },
}

impl VolumeError {
    pub(crate) fn system(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { action, source }
    }

    pub(crate) fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            reason: reason.into(),
        }
    }

    /// Returns the error with its causes, in one line.
    pub fn describe(&self) -> String {
        millpond_process::with_causes(self)
    }
}
