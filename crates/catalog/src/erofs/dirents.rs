//! Blocks of a directory.
//!
//! A block is an array of entries and then their names in the same order, up to the block's end or a zero byte. Names are
//! sorted by their bytes within a block and over all of them; `.` and `..` are sorted like any other. A block holds as
//! many entries as fit.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U64};

use super::BLOCK_BYTES;
use super::disk::{DiskDirent, FILE_TYPE_DIRECTORY, FILE_TYPE_FILE};
use crate::{Kind, Nid};

/// Length of an entry without its name.
pub(crate) const ENTRY_BYTES: usize = size_of::<DiskDirent>();

/// Inserts `.` and `..` into the sorted names of a directory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Dots {
    given: u8,
}

impl Dots {
    /// Returns the next of the two that sorts before `name` (`None`: the end), until there is none.
    pub(crate) fn due(&mut self, name: Option<&[u8]>) -> Option<&'static [u8]> {
        let dot: &'static [u8] = match self.given {
            0 => b".",
            1 => b"..",
            _ => return None,
        };
        if name.is_some_and(|name| name < dot) {
            return None;
        }
        self.given += 1;
        Some(dot)
    }
}

/// Block that is being filled.
#[derive(Debug, Default)]
pub(crate) struct DirentBlock {
    entries: Vec<(u64, u8, u16)>,
    names: Vec<u8>,
}

impl DirentBlock {
    /// Returns whether an entry of that name fits.
    pub(crate) fn fits(&self, name: &[u8]) -> bool {
        fits(self.entries.len() * ENTRY_BYTES + self.names.len(), name)
    }

    pub(crate) fn push(&mut self, name: &[u8], nid: Nid, kind: Kind) {
        let file_type = match kind {
            Kind::File => FILE_TYPE_FILE,
            Kind::Directory => FILE_TYPE_DIRECTORY,
        };
        let offset = u16::try_from(self.names.len()).unwrap_or(u16::MAX);
        self.entries.push((nid.0, file_type, offset));
        self.names.extend_from_slice(name);
    }

    /// Appends the block's bytes and starts another.
    pub(crate) fn take(&mut self, bytes: &mut Vec<u8>) {
        bytes.clear();
        let names_begin = u16::try_from(self.entries.len() * ENTRY_BYTES).unwrap_or(u16::MAX);
        for &(nid, file_type, offset) in &self.entries {
            let name_offset = U16::new(names_begin.saturating_add(offset));
            let dirent = DiskDirent {
                nid: U64::new(nid),
                name_offset,
                file_type,
                reserved: 0,
            };
            bytes.extend_from_slice(dirent.as_bytes());
        }
        bytes.extend_from_slice(&self.names);
        bytes.resize(BLOCK_BYTES, 0);
        self.entries.clear();
        self.names.clear();
    }
}

/// Counter of the blocks that entries need, without storing them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DirentCount {
    pub(crate) full_blocks: u64,
    used_bytes: usize,
}

impl DirentCount {
    pub(crate) fn push(&mut self, name: &[u8]) {
        if !fits(self.used_bytes, name) {
            self.full_blocks += 1;
            self.used_bytes = 0;
        }
        self.used_bytes += ENTRY_BYTES + name.len();
    }

    /// Returns the number of blocks; at least one, because of the dots.
    pub(crate) const fn blocks(&self) -> u64 {
        self.full_blocks + 1
    }
}

const fn fits(used_bytes: usize, name: &[u8]) -> bool {
    used_bytes + ENTRY_BYTES + name.len() <= BLOCK_BYTES
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn dots_take_their_place_in_the_order(mut names in prop::collection::btree_set("[ -/a.]{1,3}", 0..8)) {
            names.remove(".");
            names.remove("..");
            let (mut dots, mut all) = (Dots::default(), Vec::new());
            for name in names.iter().map(String::as_bytes).map(Some).chain([None]) {
                while let Some(dot) = dots.due(name) {
                    all.push(dot);
                }
                all.extend(name);
            }
            prop_assert!(all.is_sorted());
            prop_assert_eq!(all.len(), names.len() + 2);
        }

        #[test]
        fn blocks_are_counted_as_they_are_filled(lengths in prop::collection::vec(1..256usize, 1..200)) {
            let (mut count, mut block, mut blocks, mut bytes) = (DirentCount::default(), DirentBlock::default(), 1, Vec::new());
            for length in lengths {
                let name = vec![b'n'; length];
                count.push(&name);
                if !block.fits(&name) {
                    block.take(&mut bytes);
                    prop_assert_eq!(bytes.len(), BLOCK_BYTES);
                    blocks += 1;
                }
                block.push(&name, Nid(7), Kind::File);
            }
            prop_assert_eq!(count.blocks(), blocks);
        }
    }
}
