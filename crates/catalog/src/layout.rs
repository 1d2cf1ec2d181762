//! Measures a tree, so that a second walk can write each part at its final place.
//!
//! A directory's inode precedes its children's and refers to the blocks of its entries; entries refer to the inodes of
//! subdirectories. With the number of blocks and the bytes of child inodes known for each directory, a walk can assign
//! every directory its two extents when it enters it, and all of these numbers are known when they are written. They are
//! stored in an unnamed file, 16 bytes a directory in the order of the walk, since there may be millions of directories.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::erofs::{self, BLOCK, DirentCount, Dots, INODE_BYTES, ROOT_NID, SHARED_BLOCK, SLOT};
use crate::name::key_of;
use crate::tree::{FileRecord, Visitor};
use crate::{Error, Refusal, Refused, RefusedKey, Result, SourceInfo};

/// Most refused keys in a catalog's summary.
const SAMPLES_MAX: usize = 1000;
/// Most bytes of a refused key in it.
const SAMPLE_KEY_MAX_BYTES: usize = 1024;

/// Offset of the inodes of the root's children, from the start of the inodes.
pub(crate) const FIRST_CHILD: u64 = ROOT_NID * SLOT + INODE_BYTES;

/// Size of a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DirectoryInfo {
    /// Blocks of its entries.
    pub(crate) blocks: u32,
    /// Number of subdirectories.
    pub(crate) directories: u32,
    /// Bytes of the inodes of its children.
    pub(crate) inode_bytes: u64,
}

const INFO_BYTES: usize = 16;

impl DirectoryInfo {
    fn to_bytes(self) -> [u8; INFO_BYTES] {
        let Self {
            blocks,
            directories,
            inode_bytes,
        } = self;
        (u128::from(inode_bytes) << 64 | u128::from(directories) << 32 | u128::from(blocks)).to_le_bytes()
    }

    fn from_bytes(bytes: [u8; INFO_BYTES]) -> Self {
        let [blocks, directories] = [0, 4].map(|at| {
            u32::from_le_bytes(std::array::from_fn(|byte| {
                bytes.get(at + byte).copied().unwrap_or_default()
            }))
        });
        let inode_bytes = u64::from_le_bytes(std::array::from_fn(|byte| {
            bytes.get(8 + byte).copied().unwrap_or_default()
        }));
        Self {
            blocks,
            directories,
            inode_bytes,
        }
    }
}

/// Size of a complete tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) files: u64,
    /// Number of directories, including the root.
    pub(crate) directories: u64,
    /// Sum of the files' sizes.
    pub(crate) bytes: u64,
    blocks: u64,
    inode_bytes: u64,
}

/// Layout of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// First block of directory entries.
    pub(crate) directories_block: u32,
    /// First block of inodes.
    pub(crate) meta_block: u32,
    /// Length of the image.
    pub(crate) image_bytes: u64,
}

impl Totals {
    /// Lays out an image with `shared_bytes` of shared attributes.
    pub(crate) fn layout(&self, shared_bytes: usize) -> Result<Layout> {
        let too_large = || Error::Options("the listing is larger than one image can hold".to_owned());
        let directories_block = u64::from(SHARED_BLOCK) + (shared_bytes as u64).div_ceil(BLOCK);
        let meta_block = directories_block + self.blocks;
        let meta_bytes = FIRST_CHILD + self.inode_bytes;
        // The index holds inode numbers in 32 bits.
        u32::try_from(meta_bytes / SLOT).ok().ok_or_else(too_large)?;
        Ok(Layout {
            directories_block: u32::try_from(directories_block).ok().ok_or_else(too_large)?,
            meta_block: u32::try_from(meta_block).ok().ok_or_else(too_large)?,
            image_bytes: meta_block * BLOCK + meta_bytes.next_multiple_of(BLOCK),
        })
    }

    /// Returns the unused ranges of the inodes' blocks: before the root, and after the last inode.
    pub(crate) fn meta_padding(&self, layout: &Layout) -> (Range<u64>, u64) {
        let meta = u64::from(layout.meta_block) * BLOCK;
        (
            meta..meta + ROOT_NID * SLOT,
            meta + FIRST_CHILD + self.inode_bytes,
        )
    }

    /// Returns the Dataset's size in the superblock's unit.
    pub(crate) fn statfs_blocks(&self) -> u32 {
        u32::try_from(self.bytes.div_ceil(BLOCK)).unwrap_or(u32::MAX)
    }
}

/// Collector of objects that cannot be in the tree.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    counts: BTreeMap<Refusal, u64>,
    /// Smallest ones, independent of the order of the listing.
    samples: BTreeSet<RefusedKey>,
}

impl Refusals {
    pub(crate) fn add(&mut self, reason: Refusal, source: u16, key: &str) {
        *self.counts.entry(reason).or_default() += 1;
        let end = key.floor_char_boundary(SAMPLE_KEY_MAX_BYTES);
        let sample = RefusedKey {
            reason,
            source,
            key: key.get(..end).unwrap_or_default().to_owned(),
        };
        if self.samples.len() < SAMPLES_MAX {
            self.samples.insert(sample);
        } else if self.samples.last().is_some_and(|last| sample < *last) && self.samples.insert(sample) {
            self.samples.pop_last();
        }
    }

    pub(crate) fn finish(self) -> Refused {
        let Self { counts, samples } = self;
        Refused {
            counts,
            samples: samples.into_iter().collect(),
        }
    }
}

/// Visitor that measures the tree.
#[derive(Debug)]
pub(crate) struct Measure<'a> {
    sources: &'a [SourceInfo],
    infos: DirectoryInfos,
    open: Vec<Open>,
    totals: Totals,
    pub(crate) refusals: Refusals,
}

/// Directory that is being visited.
#[derive(Debug, Default)]
struct Open {
    /// Number of the directory in the walk.
    number: u64,
    entries: DirentCount,
    dots: Dots,
    info: DirectoryInfo,
}

impl Open {
    fn push(&mut self, name: Option<&[u8]>) {
        while let Some(dot) = self.dots.due(name) {
            self.entries.push(dot);
        }
        if let Some(name) = name {
            self.entries.push(name);
        }
    }
}

impl<'a> Measure<'a> {
    /// Starts in the root; `scratch` is the directory for the unnamed file.
    pub(crate) fn new(sources: &'a [SourceInfo], scratch: &Path, refusals: Refusals) -> Result<Self> {
        let infos = DirectoryInfos::create(scratch)?;
        let totals = Totals {
            directories: 1,
            ..Totals::default()
        };
        Ok(Self {
            sources,
            infos,
            open: vec![Open::default()],
            totals,
            refusals,
        })
    }

    /// Returns the measures, after the root was left.
    pub(crate) fn finish(self) -> (Totals, DirectoryInfos, Refusals) {
        (self.totals, self.infos, self.refusals)
    }

    fn child(&mut self, name: &[u8], inode_bytes: u64) {
        if let Some(open) = self.open.last_mut() {
            open.push(Some(name));
            open.info.inode_bytes += inode_bytes;
        }
        self.totals.inode_bytes += inode_bytes;
    }
}

impl Visitor for Measure<'_> {
    fn enter(&mut self, name: &[u8]) -> Result<()> {
        self.child(name, INODE_BYTES);
        if let Some(open) = self.open.last_mut() {
            open.info.directories = open.info.directories.saturating_add(1);
        }
        self.open.push(Open {
            number: self.totals.directories,
            ..Open::default()
        });
        self.totals.directories += 1;
        Ok(())
    }

    fn file(&mut self, name: &[u8], file: &FileRecord<'_>) -> Result<()> {
        self.child(
            name,
            erofs::file_inode_bytes(file.size_bytes, file.validator.len()),
        );
        self.totals.files += 1;
        self.totals.bytes = self.totals.bytes.saturating_add(file.size_bytes);
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        let Some(mut open) = self.open.pop() else {
            return Ok(());
        };
        open.push(None);
        // More than 32 bits of blocks are refused with the layout.
        open.info.blocks = u32::try_from(open.entries.blocks()).unwrap_or(u32::MAX);
        self.totals.blocks = self.totals.blocks.saturating_add(open.entries.blocks());
        self.infos.set(open.number, open.info)
    }

    fn refuse(&mut self, reason: Refusal, path: &[u8], file: &FileRecord<'_>) -> Result<()> {
        let source = self.sources.get(usize::from(file.source));
        let key = source.and_then(|source| key_of(source, path)).unwrap_or_default();
        self.refusals.add(reason, file.source, &key);
        Ok(())
    }
}

/// Sizes of all directories, by their numbers in the walk.
#[derive(Debug)]
pub(crate) struct DirectoryInfos {
    file: File,
    scratch: PathBuf,
}

impl DirectoryInfos {
    fn create(scratch: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(scratch).map_err(Error::io("create a spill file in", scratch))?;
        Ok(Self {
            file,
            scratch: scratch.to_owned(),
        })
    }

    fn set(&self, number: u64, info: DirectoryInfo) -> Result<()> {
        self.file
            .write_all_at(&info.to_bytes(), number * INFO_BYTES as u64)
            .map_err(Error::io("write a spill file in", &self.scratch))
    }

    /// Reads the sizes from the root's on.
    pub(crate) fn read(mut self) -> Result<DirectoryInfoReader> {
        self.file
            .rewind()
            .map_err(Error::io("read a spill file in", &self.scratch))?;
        Ok(DirectoryInfoReader {
            file: BufReader::with_capacity(64 << 10, self.file),
            scratch: self.scratch,
        })
    }
}

/// Reader of the directories' sizes in the order of the walk.
#[derive(Debug)]
pub(crate) struct DirectoryInfoReader {
    file: BufReader<File>,
    scratch: PathBuf,
}

impl DirectoryInfoReader {
    pub(crate) fn next(&mut self) -> Result<DirectoryInfo> {
        let mut bytes = [0; INFO_BYTES];
        self.file
            .read_exact(&mut bytes)
            .map_err(Error::io("read a spill file in", &self.scratch))?;
        Ok(DirectoryInfo::from_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_directory_takes_is_read_as_it_was_written() {
        let infos = DirectoryInfos::create(&std::env::temp_dir()).unwrap();
        let info = |n: u32| DirectoryInfo {
            blocks: n,
            directories: n + 1,
            inode_bytes: u64::from(n) << 33,
        };
        for n in [2, 0, 1] {
            infos.set(u64::from(n), info(n)).unwrap();
        }
        let mut reader = infos.read().unwrap();
        for n in 0..3 {
            assert_eq!(reader.next().unwrap(), info(n));
        }
        assert!(reader.next().is_err());
    }

    #[test]
    fn samples_are_the_least_keys_in_any_order() {
        let keys: Vec<String> = (0..3000).map(|n| format!("{n:05}")).collect();
        let (mut forward, mut backward) = (Refusals::default(), Refusals::default());
        keys.iter().for_each(|key| forward.add(Refusal::Nul, 0, key));
        keys.iter()
            .rev()
            .for_each(|key| backward.add(Refusal::Nul, 0, key));
        let refused = forward.finish();
        assert_eq!(refused, backward.finish());
        assert_eq!(refused.counts, BTreeMap::from([(Refusal::Nul, 3000)]));
        assert_eq!(refused.samples.len(), SAMPLES_MAX);
        assert_eq!(refused.samples.last().unwrap().key, "00999");
    }

    #[test]
    fn long_keys_are_cut_between_characters() {
        let mut refusals = Refusals::default();
        refusals.add(Refusal::NameTooLong, 0, &"é".repeat(2000).replacen('é', "e", 1));
        assert_eq!(refusals.finish().samples[0].key.len(), 1023);
    }
}
