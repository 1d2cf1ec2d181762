//! Memory maps and leases of files under test.
#![expect(unsafe_code, reason = "maps and leases have no safe face")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use memmap2::{Mmap, MmapOptions};

pub(super) fn map_shared(file: &File) -> io::Result<Mmap> {
    // SAFETY: the mount is read-only, so nobody changes what is mapped.
    unsafe { Mmap::map(file) }
}

pub(super) fn map_private(file: &File) -> io::Result<Mmap> {
    // SAFETY: as above.
    unsafe { MmapOptions::new().map_copy_read_only(file) }
}

/// Takes or gives back a lease (`F_WRLCK`, `F_UNLCK`).
pub(super) fn lease(file: &File, kind: i32) -> io::Result<()> {
    // SAFETY: the call takes numbers only, and the descriptor is open.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
