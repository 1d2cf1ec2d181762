//! Why a tier cannot be opened, and why it does not store an object.

use std::path::PathBuf;

/// Why a cache directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process, or another store of this one, has it open.
    #[error("cache directory {path} is in use by another mount")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It caches another source.
    #[error("cache directory {path} belongs to {found}, not to {wanted}: give another one, or remove it")]
    OtherIdentity {
        /// The directory.
        path: PathBuf,
        /// The source that it caches.
        found: String,
        /// The source that it was opened for.
        wanted: String,
    },
    /// It was written by a version of Millpond that this one does not know.
    #[error("cache directory {path} has layout version {found}, this program knows {known}")]
    OtherLayout {
        /// The directory.
        path: PathBuf,
        /// Its layout version.
        found: u32,
        /// The layout version of this program.
        known: u32,
    },
    /// A call to the file system failed.
    #[error("failed to {doing} in cache directory {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// Why the store does not keep an object: its reads bypass the cache. Counted, and logged where it is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotStored {
    /// The tier is full and nothing in it may be evicted.
    #[error("the cache is full")]
    Full,
    /// The file system failed (no space, an I/O error, the directory was deleted or is denied).
    #[error("the cache directory cannot be written")]
    Failed,
}
