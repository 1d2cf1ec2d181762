//! Mappings, read without the risk of a signal.

use std::fs::File;
use std::io::{self, Write};

use memmap2::MmapOptions;

/// How a file is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    Private,
    Shared,
}

/// Copies a range of a file, which must be within it, out of a mapping of all of it.
///
/// The kernel copies, so that a page which cannot be had is EFAULT and not SIGBUS.
pub(crate) fn copy_mapped(
    file: &File,
    sharing: Sharing,
    range: std::ops::Range<usize>,
    target: &mut File,
) -> io::Result<()> {
    let options = MmapOptions::new();
    // SAFETY: the mapping is only ever read by the kernel, on behalf of write(2), and no process truncates the file.
    let map = unsafe {
        match sharing {
            Sharing::Private => options.map_copy_read_only(file),
            Sharing::Shared => options.map(file),
        }
    }?;
    let bytes = map.get(range).ok_or(io::ErrorKind::InvalidInput)?;
    target.write_all(bytes)
}
