//! A directory of one mount, mounted at another path.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::mount::{MountFlags, OpenTreeFlags, mount_remount, open_tree};

use super::context::{DetachedMount, open_directory};
use super::error::{MountError, Result};
use super::unmount::detach;

/// Clones the directory `source` as a mount, attached nowhere yet. The file system looks up each name of the path.
pub(crate) fn clone_tree(source: &Path) -> Result<DetachedMount> {
    let directory = open_directory(source)?;
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = open_tree(directory.as_fd(), "", flags)
        .map_err(|error| MountError::new("take hold of the directory", source, error))?;
    Ok(DetachedMount::from(mount))
}

/// Attaches such a mount at `target`, read-only, without devices and set-user-id programs.
///
/// # Errors
/// The kernel rejects it; nothing is left at `target`.
pub(crate) fn show_tree(tree: DetachedMount, target: &Path) -> Result<()> {
    tree.attach(target)?;
    // The clone has the flags of its source, and gets those of a view. The kernel changes them by path only.
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount_remount(target, flags, "").map_err(|error| {
        let failed = MountError::new("protect the mount at", target, error);
        match detach(target) {
            Ok(()) => failed,
            Err(left) => left,
        }
    })
}
