//! Taking mounts away again.

use std::path::Path;

use rustix::mount::UnmountFlags;

use super::error::{MountError, Result};

/// Unmounts what is on top at `path`.
///
/// # Errors
/// EBUSY where somebody has a file of it open or stands in it, EINVAL where nothing is mounted.
pub fn unmount(path: &Path) -> Result<()> {
    rustix::mount::unmount(path, UnmountFlags::NOFOLLOW)
        .map_err(|error| MountError::new("unmount", path, error))
}

/// Takes the mount at `path` out of the tree now; it ends when its last user is gone.
///
/// # Errors
/// EINVAL where nothing is mounted.
pub fn detach(path: &Path) -> Result<()> {
    rustix::mount::unmount(path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
        .map_err(|error| MountError::new("detach", path, error))
}
