//! What can go wrong with a catalog.

use std::io;
use std::path::{Path, PathBuf};

/// The result of anything that touches a catalog.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a catalog could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused: a later try may succeed.
    #[error("failed to {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// The file is not a catalog as this version writes it: it has to be made anew.
    #[error("damaged or foreign catalog: {what} at byte {offset}")]
    Corrupt {
        /// What is wrong.
        what: &'static str,
        /// Where in the file.
        offset: u64,
    },
    /// The caller's options contradict each other or the format: no retry will help.
    #[error("cannot build a catalog: {0}")]
    Options(String),
    /// The inode asked for is of another kind.
    #[error("inode {nid} is not a {wanted}")]
    WrongKind {
        /// The inode.
        nid: u64,
        /// What the operation needs.
        wanted: &'static str,
    },
}

impl Error {
    /// Builds the closure that gives an [`io::Error`] its context.
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
