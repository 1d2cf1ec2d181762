//! Mapping a file: the only unsafe code of this crate.

use std::fs::File;
use std::io;

use memmap2::Mmap;

pub(crate) fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the bytes are only summed up; a file that changes meanwhile gives another sum, and one that is truncated
    // ends the measurement with SIGBUS. Callers measure files that no process writes.
    #[expect(unsafe_code, reason = "mapping a file is unsafe in every crate that does it")]
    unsafe {
        Mmap::map(file)
    }
}
