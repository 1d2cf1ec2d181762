//! Write leases, as the worker acquires them before it evicts an object.
#![expect(
    unsafe_code,
    reason = "leases are acquired by a fcntl that no safe crate offers"
)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Acquires the lease; closing the file releases it.
pub(crate) fn take_write_lease(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open, and this command takes a number.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
