//! Why a view cannot be shown or taken away.

use std::io;
use std::path::PathBuf;

use crate::mount::MountError;

/// Errors of the views.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The kernel refused; the same call may work later.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// There is a mount at the target, and it is not this view.
    #[error("{target:?} is a mount already, of {found:?}: unmount it or choose another directory")]
    Taken {
        /// The directory asked for.
        target: PathBuf,
        /// The source that its mount names.
        found: std::ffi::OsString,
    },
    /// The registry shows a view at the target already.
    #[error("a view is shown at {target:?} already")]
    Shown {
        /// The directory asked for.
        target: PathBuf,
    },
    /// No view is at the target.
    #[error("no view is shown at {target:?}")]
    Missing {
        /// The directory asked for.
        target: PathBuf,
    },
    /// Files of the view are in use.
    #[error("the view at {target:?} is in use")]
    Busy {
        /// Where the view is.
        target: PathBuf,
    },
    /// The node lacks what kernel views need.
    #[error("this kernel cannot show kernel views: {reason}")]
    Unsupported {
        /// What is missing, for a person.
        reason: String,
    },
    /// The catalog of a view cannot be read.
    #[error("failed to read the catalog {path:?}: {reason}")]
    Catalog {
        /// The image or its index.
        path: PathBuf,
        /// What the catalog's reader says.
        reason: String,
    },
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

impl ViewError {
    pub(crate) fn system(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { action, source }
    }
}
