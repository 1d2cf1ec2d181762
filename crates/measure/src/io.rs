//! The one place with `unsafe`: mapping a file.

use std::fs::File;
use std::io;

use memmap2::Mmap;

pub(crate) fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the map is only summed up; a file that changes meanwhile makes another sum, and one that is cut short
    // ends the measurement with SIGBUS. Callers measure files that nobody writes.
    #[expect(unsafe_code, reason = "mapping a file is unsafe in every crate that does it")]
    unsafe {
        Mmap::map(file)
    }
}
