//! Errors of the views.

use std::io;
use std::path::PathBuf;

use crate::mount::MountError;

/// Why a view cannot be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The kernel rejected a call, which may succeed later.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// Another mount is at the target.
    #[error("{found:?} is mounted at {target:?}: unmount it or choose another directory")]
    Occupied {
        /// The requested directory.
        target: PathBuf,
        /// The source that its mount names.
        found: std::ffi::OsString,
    },
    /// The registry has a view at the target already.
    #[error("a view is mounted at {target:?} already")]
    AlreadyMounted {
        /// The requested directory.
        target: PathBuf,
    },
    /// No view is at the target.
    #[error("no view is mounted at {target:?}")]
    Missing {
        /// The requested directory.
        target: PathBuf,
    },
    /// Files of the view are in use.
    #[error("the view at {target:?} is in use")]
    Busy {
        /// Where the view is.
        target: PathBuf,
    },
    /// The node lacks what kernel views need.
    #[error("this kernel does not support kernel views: {reason}")]
    Unsupported {
        /// What is missing, for a user.
        reason: String,
    },
    /// The catalog of a view cannot be read.
    #[error("failed to read the catalog {path:?}: {reason}")]
    Catalog {
        /// The image or its index.
        path: PathBuf,
        /// The error of the catalog's reader.
        reason: String,
    },
    /// Any other system error.
    #[error("failed to {action}")]
    System {
        /// The failed action.
        action: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

impl ViewError {
    pub(crate) fn system(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { action, source }
    }
}
