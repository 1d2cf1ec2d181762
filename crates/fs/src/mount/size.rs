//! The size that a mounted file system reports.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::{MountError, Result};

/// The result of `statvfs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Its capacity in bytes.
    pub bytes: u64,
    /// Files and directories.
    pub files: u64,
}

impl Size {
    /// Sends `statvfs` to the file system at `path`.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let found = rustix::fs::statvfs(path)
            .map_err(|error| MountError::new("get the size of the file system at", path, error))?;
        Ok(Self {
            bytes: found.f_blocks.saturating_mul(found.f_frsize),
            files: found.f_files,
        })
    }
}
