//! How large a mounted file system says it is.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::{MountError, Result};

/// What `statvfs` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Its capacity in bytes.
    pub bytes: u64,
    /// Files and directories.
    pub files: u64,
}

impl Size {
    /// Asks the file system at `path`.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let found = rustix::fs::statvfs(path)
            .map_err(|error| MountError::new("ask for the size of the file system at", path, error))?;
        Ok(Self {
            bytes: found.f_blocks.saturating_mul(found.f_frsize),
            files: found.f_files,
        })
    }
}
