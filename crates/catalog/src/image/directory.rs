//! Entries of one directory.
//!
//! A position in a directory, the cookie of `readdir`, is the offset of an entry in the directory's blocks. Entries are sorted
//! by their names, so a name is found by two binary searches, over blocks and in one; and a directory's children have
//! inode numbers that grow with their names, so an inode's name is found in the same way.

use zerocopy::FromBytes;

use super::{Kind, Nid};
use crate::erofs::{BLOCK, BLOCK_BYTES, DiskDirent, ENTRY_BYTES, FILE_TYPE_DIRECTORY, FILE_TYPE_FILE};
use crate::io::Mapped;
use crate::{Error, Result};

/// An entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// Name, also `.` and `..`: any bytes but `/` and zero.
    pub name: &'a [u8],
    /// Inode of the entry.
    pub nid: Nid,
    /// Kind of the inode.
    pub kind: Kind,
    /// Cookie with which [`Image::read_dir`](super::Image::read_dir) continues after this entry.
    pub next: u64,
}

/// The entries of a directory in the order of their names' bytes, from a cookie on.
///
/// After an error there are no more entries.
#[derive(Debug)]
pub struct ReadDir<'a> {
    directory: Directory<'a>,
    position: u64,
    /// Block of `position`, once it was read.
    block: Option<Block<'a>>,
}

impl<'a> ReadDir<'a> {
    pub(super) const fn new(directory: Directory<'a>, from: u64) -> Self {
        Self {
            directory,
            position: from,
            block: None,
        }
    }

    fn entry(&mut self) -> Result<Option<DirEntry<'a>>> {
        let number = self.position / BLOCK;
        if number >= self.directory.blocks {
            return Ok(None);
        }
        let block = match self.block {
            Some(block) if block.number == number => block,
            _ => *self.block.insert(self.directory.block(number)?),
        };
        let within = usize::try_from(self.position % BLOCK).unwrap_or(BLOCK_BYTES);
        if !within.is_multiple_of(ENTRY_BYTES) {
            return Err(Error::corrupt(
                "a cookie is not the position of an entry",
                self.position,
            ));
        }
        block.entry(within / ENTRY_BYTES).map(Some)
    }
}

impl<'a> Iterator for ReadDir<'a> {
    type Item = Result<DirEntry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entry().transpose()?;
        self.position = entry.as_ref().map_or(u64::MAX, |entry| entry.next);
        Some(entry)
    }
}

/// Blocks of a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Directory<'a> {
    map: &'a Mapped,
    offset: u64,
    blocks: u64,
}

impl<'a> Directory<'a> {
    pub(super) fn new(map: &'a Mapped, offset: u64, size_bytes: u64) -> Result<Self> {
        let end = offset
            .checked_add(size_bytes)
            .filter(|&end| end <= map.len() && size_bytes.is_multiple_of(BLOCK));
        end.ok_or(Error::corrupt("a directory is not within the image", offset))?;
        Ok(Self {
            map,
            offset,
            blocks: size_bytes / BLOCK,
        })
    }

    pub(super) fn lookup(&self, name: &[u8]) -> Result<Option<DirEntry<'a>>> {
        // The last block that does not start after the name.
        let after = partition_point(self.blocks, |number| {
            Ok(self.block(number)?.entry(0)?.name <= name)
        })?;
        let Some(number) = after.checked_sub(1) else {
            return Ok(None);
        };
        let block = self.block(number)?;
        let index = partition_point(block.entries as u64, |index| {
            Ok(block.entry(usize::try_from(index).unwrap_or(usize::MAX))?.name < name)
        })?;
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        if index >= block.entries {
            return Ok(None);
        }
        Ok(Some(block.entry(index)?).filter(|entry| entry.name == name))
    }

    /// Returns the name of a child.
    pub(super) fn name_of(&self, nid: Nid) -> Result<Option<&'a [u8]>> {
        let begins_before = |number| {
            // A block that contains only dots can only be the last.
            let first = self.block(number)?.children().next().transpose()?;
            Ok(first.is_some_and(|first| first.nid <= nid))
        };
        let Some(number) = partition_point(self.blocks, begins_before)?.checked_sub(1) else {
            return Ok(None);
        };
        for entry in self.block(number)?.children() {
            let entry = entry?;
            if entry.nid == nid {
                return Ok(Some(entry.name));
            }
        }
        Ok(None)
    }

    fn block(&self, number: u64) -> Result<Block<'a>> {
        // Within the image, since the number is below the number of blocks.
        let offset = self.offset + number * BLOCK;
        let bytes = self.map.bytes(offset, BLOCK_BYTES)?;
        let mut block = Block {
            bytes,
            offset,
            number,
            entries: 1,
        };
        let names_begin = usize::from(block.dirent(0)?.name_offset.get());
        if !(ENTRY_BYTES..=BLOCK_BYTES).contains(&names_begin) || !names_begin.is_multiple_of(ENTRY_BYTES) {
            return Err(Error::corrupt("a directory block has no entries", offset));
        }
        block.entries = names_begin / ENTRY_BYTES;
        Ok(block)
    }
}

/// One block of a directory.
#[derive(Clone, Copy, Debug)]
struct Block<'a> {
    bytes: &'a [u8],
    /// Offset in the image.
    offset: u64,
    /// Number in the directory.
    number: u64,
    /// Number of entries, at least one.
    entries: usize,
}

impl<'a> Block<'a> {
    fn entry(&self, index: usize) -> Result<DirEntry<'a>> {
        let damaged = Error::corrupt("a directory entry is damaged", self.offset);
        if index >= self.entries {
            return Err(damaged);
        }
        let dirent = self.dirent(index)?;
        let start = usize::from(dirent.name_offset.get());
        let is_last = index + 1 == self.entries;
        let end = if is_last {
            BLOCK_BYTES
        } else {
            usize::from(self.dirent(index + 1)?.name_offset.get())
        };
        let name = self
            .bytes
            .get(start..end)
            .filter(|_| start >= self.entries * ENTRY_BYTES);
        // Only the last name is followed by zeros.
        let name = name
            .and_then(|name| name.split(|&byte| byte == 0).next())
            .filter(|name| !name.is_empty());
        let kind = match dirent.file_type {
            FILE_TYPE_FILE => Some(Kind::File),
            FILE_TYPE_DIRECTORY => Some(Kind::Directory),
            _ => None,
        };
        let (name, kind) = name.zip(kind).ok_or(damaged)?;
        let within = if is_last {
            BLOCK
        } else {
            ((index + 1) * ENTRY_BYTES) as u64
        };
        Ok(DirEntry {
            name,
            nid: Nid(dirent.nid.get()),
            kind,
            next: self.number * BLOCK + within,
        })
    }

    /// Returns all entries but the dots.
    fn children(self) -> impl Iterator<Item = Result<DirEntry<'a>>> {
        let entries = (0..self.entries).map(move |index| self.entry(index));
        entries.filter(|entry| {
            !entry
                .as_ref()
                .is_ok_and(|entry| matches!(entry.name, b"." | b".."))
        })
    }

    fn dirent(&self, index: usize) -> Result<DiskDirent> {
        let start = index * ENTRY_BYTES;
        let bytes = self.bytes.get(start..start + ENTRY_BYTES);
        bytes
            .and_then(|bytes| DiskDirent::read_from_bytes(bytes).ok())
            .ok_or(Error::corrupt("a directory entry is damaged", self.offset))
    }
}

/// Returns the smallest number below `end` for which `holds` does not hold, or `end`.
fn partition_point(end: u64, mut holds: impl FnMut(u64) -> Result<bool>) -> Result<u64> {
    let (mut low, mut high) = (0, end);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}
