//! A directory of one mount shown at another place.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::mount::{MountFlags, OpenTreeFlags, mount_remount, open_tree};

use super::context::{DetachedMount, open_directory};
use super::error::{MountError, Result};
use super::unmount::detach;

/// A mount of the directory `source` that no path leads to yet. Asks the file system for each name of the path.
pub(crate) fn clone_tree(source: &Path) -> Result<DetachedMount> {
    let directory = open_directory(source)?;
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = open_tree(directory.as_fd(), "", flags)
        .map_err(|error| MountError::new("take hold of the directory", source, error))?;
    Ok(DetachedMount::from(mount))
}

/// Shows such a mount at `target`, read-only, without devices and set-user-id programs.
///
/// # Errors
/// Nothing is left at `target` when it fails.
pub(crate) fn show_tree(tree: DetachedMount, target: &Path) -> Result<()> {
    tree.attach(target)?;
    // The clone came with the flags of its source; these are ours. The kernel changes them at a path only.
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount_remount(target, flags, "").map_err(|error| {
        let failed = MountError::new("protect the mount at", target, error);
        match detach(target) {
            Ok(()) => failed,
            Err(left) => left,
        }
    })
}
