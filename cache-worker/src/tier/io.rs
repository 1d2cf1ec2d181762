//! The calls that Rust cannot check: mapping a cache file, and leases.
#![expect(
    unsafe_code,
    reason = "mmap and fcntl have no safe face for what is needed here"
)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use memmap2::Mmap;

/// From asm-generic/fcntl.h; libc does not have it.
const F_SETSIG: libc::c_int = 10;

/// Maps all of a cache file for reading.
///
/// # Errors
/// The kernel's.
pub(super) fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: a map is unsound where its bytes change under a `&[u8]`. Only ranges whose blocks have landed are handed
    // out; a landed block is never written again but with the very same bytes, and the file is never truncated. No other
    // process writes it: only the owner may, and the directory is locked by this one.
    unsafe { Mmap::map(file) }
}

/// Asks for a write lease on `file`, which must be open for reading only. Granted exactly when nobody else has it
/// open or mapped; refused where the file system knows no leases. It ends when the descriptor is closed.
///
/// Whoever opens the file meanwhile waits for that moment, and the kernel tells us by a signal. It would be SIGIO,
/// deadly unless the whole process handles it; SIGURG, which is ignored unless somebody asks for it, costs nothing.
pub(crate) fn write_lease(file: &File) -> bool {
    let descriptor = file.as_raw_fd();
    // SAFETY: F_SETSIG takes an int and changes only the descriptor, which `file` keeps open.
    let signal = unsafe { libc::fcntl(descriptor, F_SETSIG, libc::SIGURG) };
    if signal != 0 {
        return false;
    }
    // SAFETY: F_SETLEASE takes an int and changes only the descriptor, which `file` keeps open.
    let lease = unsafe { libc::fcntl(descriptor, libc::F_SETLEASE, libc::F_WRLCK) };
    lease == 0
}
