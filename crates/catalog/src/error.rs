//! Errors of catalogs.

use std::io;
use std::path::{Path, PathBuf};

/// Result of an operation on a catalog.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Error of writing or reading a catalog.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system failed: a retry may succeed.
    #[error("failed to {action} {}", path.display())]
    Io {
        /// Attempted action.
        action: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The file is not a catalog of this version: it has to be built again.
    #[error("damaged or foreign catalog: {what} at byte {offset}")]
    Corrupt {
        /// The damage.
        what: &'static str,
        /// Offset in the file.
        offset: u64,
    },
    /// The caller's options contradict each other or the format: a retry cannot succeed.
    #[error("cannot build a catalog: {0}")]
    Options(String),
    /// The requested inode is of another kind.
    #[error("inode {nid} is not a {wanted}")]
    WrongKind {
        /// Number of the inode.
        nid: u64,
        /// Kind that the operation needs.
        wanted: &'static str,
    },
}

impl Error {
    /// Returns a closure that adds context to an [`io::Error`].
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) const fn corrupt(what: &'static str, offset: u64) -> Self {
        Self::Corrupt { what, offset }
    }
}
