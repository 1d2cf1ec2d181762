//! Why a volume cannot be shown, as far as the kubelet should know.

use std::io;
use std::path::PathBuf;

use millpond_fs::fuse::FuseError;
use millpond_fs::view::ViewError;

/// Errors of publishing and unpublishing.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The request names something that cannot be.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field of the request.
        field: &'static str,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// The pod may not use the Dataset.
    #[error("{reason}")]
    Denied {
        /// Who may not use what, and who could allow it.
        reason: String,
    },
    /// There is no such volume on this node.
    #[error("no volume {volume} is shown at {}", path.display())]
    NotFound {
        /// Its id.
        volume: String,
        /// Where it should be.
        path: PathBuf,
    },
    /// The target shows something else.
    #[error("{} is in use by another volume or with other parameters", target.display())]
    Exists {
        /// The target.
        target: PathBuf,
    },
    /// Something is missing that may come.
    #[error("{missing}")]
    NotReady {
        /// What, and where to look.
        missing: String,
    },
    /// It cannot work on this node, whatever comes.
    #[error("{reason}")]
    Impossible {
        /// Why, and what would help.
        reason: String,
    },
    /// A view failed.
    #[error("failed to show the volume")]
    View(#[from] ViewError),
    /// The FUSE mount failed.
    #[error("failed to serve the Dataset")]
    Fuse(#[from] FuseError),
    /// Anything else that the system refused.
    #[error("failed to {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
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

    /// The error with its causes, in one line.
    pub fn describe(&self) -> String {
        millpond_process::with_causes(self)
    }
}
