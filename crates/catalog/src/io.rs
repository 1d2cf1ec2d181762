//! Memory maps of catalog files: the only unsafe code of this crate.

#![expect(unsafe_code, reason = "mapping a file needs a guarantee about the file")]

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::{Error, Result};

/// Mapped catalog file, with checked reads.
#[derive(Debug)]
pub(crate) struct Mapped {
    map: Mmap,
}

impl Mapped {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        // SAFETY: catalog files are written under another name and never changed under their own, and they belong to
        // this process's user. Another process with write access could truncate one (SIGBUS) or change its bytes; no
        // reference into the map is retained across calls as anything but plain bytes.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        Ok(Self { map })
    }

    pub(crate) fn len(&self) -> u64 {
        self.map.len() as u64
    }

    /// Returns the bytes at `offset`, if there are that many.
    pub(crate) fn bytes(&self, offset: u64, length: usize) -> Result<&[u8]> {
        let slice = || {
            let start = usize::try_from(offset).ok()?;
            self.map.get(start..start.checked_add(length)?)
        };
        slice().ok_or(Error::corrupt("the file ends too early", offset))
    }

    /// Returns all bytes.
    pub(crate) fn all(&self) -> &[u8] {
        &self.map
    }
}
