//! A tmpfs of a given size, for one owner.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fsconfig_set_string, fspick};

use super::context::Context;
use super::error::{MountError, Result};

/// The source of such a mount in the table of mounts.
pub const SOURCE: &str = "millpond:memory";

/// Mounts a tmpfs at `point`, an existing directory, that only `owner` may access.
///
/// # Errors
/// The kernel rejects the mount.
pub fn mount_memory(point: &Path, size_bytes: u64, owner: u32) -> Result<()> {
    // Objects are created at their final size, so that huge pages store them without waste; not every kernel has these.
    match mount_with(point, size_bytes, owner, Some("within_size")) {
        Ok(()) => Ok(()),
        Err(_) => mount_with(point, size_bytes, owner, None),
    }
}

fn mount_with(point: &Path, size_bytes: u64, owner: u32, huge: Option<&str>) -> Result<()> {
    let context = Context::open("tmpfs", point)?;
    let (size, owner) = (size_bytes.to_string(), owner.to_string());
    context.text("source", OsStr::new(SOURCE))?;
    for (key, value) in [
        ("size", size.as_str()),
        ("mode", "0700"),
        ("uid", &owner),
        ("gid", &owner),
    ] {
        context.text(key, OsStr::new(value))?;
    }
    if let Some(huge) = huge {
        context.text("huge", OsStr::new(huge))?;
    }
    context.create_for_data()?.attach(point)
}

/// Changes the size of the tmpfs at `point`.
///
/// # Errors
/// EINVAL where more than that is used.
pub fn resize_memory(point: &Path, size_bytes: u64) -> Result<()> {
    let failed = |error| MountError::new("change the size of the file system at", point, error);
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_SYMLINK_NOFOLLOW;
    let context = fspick(CWD, point, flags).map_err(failed)?;
    fsconfig_set_string(context.as_fd(), "size", size_bytes.to_string()).map_err(failed)?;
    fsconfig_reconfigure(context.as_fd()).map_err(failed)
}
