//! A reference to a mounted file system that is independent of its mountpoint.
//!
//! A clone of the mount that is attached nowhere reaches the superblock whatever happens at the path: another mount
//! on top, a lazy unmount with readers left, a moved directory. It does not make an unmount of the path busy. The
//! superblock lives at least as long as its anchor, so an owner drops it after the unmount.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, StatxFlags, makedev};
use rustix::mount::{FsPickFlags, OpenTreeFlags, fsconfig_reconfigure, fsconfig_set_flag, fspick, open_tree};

use super::context::open_directory;
use super::error::{MountError, Result};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Anchor {
    mount: OwnedFd,
    path: PathBuf,
}

impl Anchor {
    /// References what is mounted at `path`.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let directory = open_directory(path)?;
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let mount = open_tree(directory.as_fd(), "", flags)
            .map_err(|error| MountError::new("open the mount at", path, error))?;
        Ok(Self {
            mount,
            path: path.to_owned(),
        })
    }

    /// The number of the file system's device, as in `stat` and in the table of mounts.
    pub(crate) fn device(&self) -> Result<u64> {
        // Without a request to the file system itself, which may not respond.
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        rustix::fs::statx(self.mount.as_fd(), "", flags, StatxFlags::empty())
            .map(|found| makedev(found.stx_dev_major, found.stx_dev_minor))
            .map_err(|error| MountError::new("stat the mount at", &self.path, error))
    }

    /// Remounts the file system unchanged, which makes the kernel drop each unused name and inode.
    pub(crate) fn remount(&self) -> Result<()> {
        let failed = |error| MountError::new("remount the file system at", &self.path, error);
        let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
        let context = fspick(self.mount.as_fd(), "", flags).map_err(failed)?;
        // Set again, because an overlay without an upper layer cannot become writable.
        fsconfig_set_flag(context.as_fd(), "ro").map_err(failed)?;
        fsconfig_reconfigure(context.as_fd()).map_err(failed)
    }
}

impl AsFd for Anchor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }
}
