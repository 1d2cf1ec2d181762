//! Mapping files: the one place with `unsafe`.
#![expect(
    unsafe_code,
    reason = "a file is mapped, so that sending it copies nothing in this process"
)]

use std::fs::File;
use std::io;
use std::path::Path;

use bytes::Bytes;
use memmap2::{Advice, Mmap};

/// Maps a whole file; the result shares the page cache with it.
///
/// The file must not be cut short while it is served: this process would die of it. Callers map only files of their
/// own (test data that no other process writes).
pub(crate) fn map(path: &Path) -> io::Result<Bytes> {
    let file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the file is test data that only its test writes, and no test truncates or rewrites a file that it has
    // given to an origin (the documentation of `Body::mapped` demands it).
    let map = unsafe { Mmap::map(&file) }?;
    // Advice only: without it the same bytes come, in smaller page-ins.
    let _ignored = map.advise(Advice::WillNeed);
    Ok(Bytes::from_owner(map))
}
