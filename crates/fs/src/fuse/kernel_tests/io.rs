//! Memory maps and leases of files under test, and the owners of a mount.
#![expect(unsafe_code, reason = "these calls have no safe API")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use memmap2::{Mmap, MmapOptions};

pub(super) fn map_shared(file: &File) -> io::Result<Mmap> {
    // SAFETY: the mount is read-only, so no process changes what is mapped.
    unsafe { Mmap::map(file) }
}

pub(super) fn map_private(file: &File) -> io::Result<Mmap> {
    // SAFETY: as above.
    unsafe { MmapOptions::new().map_copy_read_only(file) }
}

/// Acquires or releases a lease (`F_WRLCK`, `F_UNLCK`).
pub(super) fn lease(file: &File, kind: i32) -> io::Result<()> {
    // SAFETY: the call takes numbers only, and the descriptor is open.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Maps the owners of a mount's copy by a user namespace.
pub(super) fn map_owners(mount: &OwnedFd, users: &File) -> io::Result<()> {
    // SAFETY: all of it is numbers, for which zero is a value.
    let mut attributes: libc::mount_attr = unsafe { std::mem::zeroed() };
    attributes.attr_set = libc::MOUNT_ATTR_IDMAP;
    attributes.userns_fd = u64::try_from(users.as_raw_fd()).map_err(io::Error::other)?;
    // SAFETY: the text ends with a zero, the length of the attributes is theirs, and both descriptors are open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw mut attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
