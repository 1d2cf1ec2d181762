//! Unmounting.

use std::path::Path;

use rustix::mount::UnmountFlags;

use super::error::{MountError, Result};

/// Unmounts what is on top at `path`.
///
/// # Errors
/// EBUSY where a process has a file of it open or its working directory in it, EINVAL where nothing is mounted.
pub fn unmount(path: &Path) -> Result<()> {
    rustix::mount::unmount(path, UnmountFlags::NOFOLLOW)
        .map_err(|error| MountError::new("unmount", path, error))
}

/// Detaches the mount at `path` from the tree now; it ends with its last user.
///
/// # Errors
/// EINVAL where nothing is mounted.
pub fn detach(path: &Path) -> Result<()> {
    rustix::mount::unmount(path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
        .map_err(|error| MountError::new("detach", path, error))
}
