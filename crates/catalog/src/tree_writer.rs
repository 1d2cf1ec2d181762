//! Second walk: writes every byte of an image at its final offset.
//!
//! The bytes go to a [`Target`], which is a file when an image is built, and the mapped image itself when one is checked: an
//! image is valid if and only if writing its tree gives the same bytes again.

use zerocopy::IntoBytes;

use crate::erofs::{
    self, BLOCK, BLOCK_BYTES, DirentBlock, DiskInode, Dots, FileXattrs, INODE_BYTES, ROOT_NID, SHARED_BLOCK,
    SLOT, SharedXattrs,
};
use crate::layout::{DirectoryInfo, DirectoryInfoReader, FIRST_CHILD, Layout};
use crate::tree::{FileRecord, Visitor};
use crate::{Error, Kind, Nid, Owner, Refusal, Result};
use millpond_core::{ObjectId, Time};

/// Approximate size of the pieces in which inodes of a directory's children are written.
const INODE_BUFFER_BYTES: usize = 32 << 10;

/// Target of a [`TreeWriter`].
pub(crate) trait Target {
    /// Takes bytes of the image. No byte is written twice, and only padding (zeros) is left out.
    fn put(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;
    /// Takes a record of the index.
    fn index(&mut self, record: &IndexEntry) -> Result<()>;
}

/// Position of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) id: ObjectId,
    pub(crate) nid: u32,
    pub(crate) parent: u32,
}

/// Values common to all inodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Common<'a> {
    pub(crate) owner: Owner,
    /// Time of all directories.
    pub(crate) created: Time,
    pub(crate) shared: &'a SharedXattrs,
    pub(crate) layout: Layout,
}

/// Visitor that writes the tree.
pub(crate) struct TreeWriter<'a, T> {
    common: Common<'a>,
    target: T,
    infos: DirectoryInfoReader,
    open: Vec<Open>,
    /// First block of the next directory's entries.
    next_block: u32,
    /// Offset of the inodes of the next directory's children, from the start of the inodes.
    next_inode: u64,
    block_bytes: Vec<u8>,
}

/// Directory that is being visited.
struct Open {
    nid: u32,
    parent: u32,
    /// Number of its next block of entries.
    next_block: u64,
    block: DirentBlock,
    dots: Dots,
    /// Offset of `inodes`, from the start of the inodes.
    inodes_at: u64,
    /// Inodes of its children that are not written yet.
    inodes: Vec<u8>,
}

impl<'a, T: Target> TreeWriter<'a, T> {
    /// Writes the parts before the tree, and enters the root.
    pub(crate) fn new(common: Common<'a>, infos: DirectoryInfoReader, mut target: T) -> Result<Self> {
        target.put(u64::from(SHARED_BLOCK) * BLOCK, &common.shared.bytes)?;
        let mut writer = Self {
            common,
            target,
            infos,
            open: Vec::new(),
            next_block: common.layout.directories_block,
            next_inode: FIRST_CHILD,
            block_bytes: Vec::with_capacity(BLOCK_BYTES),
        };
        let root = u32::try_from(ROOT_NID).unwrap_or(u32::MAX);
        let inode = writer.open_directory(root, root)?;
        writer.put_inodes(ROOT_NID * SLOT, inode.as_bytes())?;
        Ok(writer)
    }

    /// Returns the target, after the root was left.
    pub(crate) fn into_target(self) -> T {
        self.target
    }

    /// Assigns a directory its extents and enters it.
    fn open_directory(&mut self, nid: u32, parent: u32) -> Result<DiskInode> {
        let Common { owner, created, .. } = self.common;
        let DirectoryInfo {
            blocks,
            directories,
            inode_bytes,
        } = self.infos.next()?;
        let nlink = directories.saturating_add(2);
        let inode = DiskInode::directory(nid, &owner, blocks, self.next_block, created, nlink);
        self.open.push(Open {
            nid,
            parent,
            next_block: u64::from(self.next_block),
            block: DirentBlock::default(),
            dots: Dots::default(),
            inodes_at: self.next_inode,
            inodes: Vec::new(),
        });
        self.next_block = self.next_block.saturating_add(blocks);
        self.next_inode = self.next_inode.saturating_add(inode_bytes);
        Ok(inode)
    }

    fn put_inodes(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.target
            .put(u64::from(self.common.layout.meta_block) * BLOCK + at, bytes)
    }

    /// Adds an entry to the current directory, after the dots that sort before it; `None`: its end.
    fn push_entry(&mut self, entry: Option<(&[u8], u32, Kind)>) -> Result<()> {
        let Some(open) = self.open.last_mut() else {
            return Ok(());
        };
        let mut push = |open: &mut Open, name: &[u8], nid: u32, kind| {
            if !open.block.fits(name) {
                open.block.take(&mut self.block_bytes);
                self.target.put(open.next_block * BLOCK, &self.block_bytes)?;
                open.next_block += 1;
            }
            open.block.push(name, Nid(u64::from(nid)), kind);
            Ok::<_, Error>(())
        };
        while let Some(dot) = open.dots.due(entry.map(|(name, ..)| name)) {
            let nid = if dot == b"." { open.nid } else { open.parent };
            push(open, dot, nid, Kind::Directory)?;
        }
        match entry {
            Some((name, nid, kind)) => push(open, name, nid, kind),
            None => Ok(()),
        }
    }

    /// Returns the current directory and the position of its next child's inode.
    fn next_child(&mut self) -> Result<(u32, u32)> {
        let open = self
            .open
            .last()
            .ok_or(Error::corrupt("more directories are left than entered", 0))?;
        let nid = (open.inodes_at + open.inodes.len() as u64) / SLOT;
        Ok((
            open.nid,
            u32::try_from(nid)
                .ok()
                .ok_or(Error::corrupt("an inode number is too large", nid))?,
        ))
    }

    /// Writes the collected inodes if they are more than `keep_bytes`.
    fn flush_inodes(&mut self, keep_bytes: usize) -> Result<()> {
        let Some(open) = self.open.last_mut() else {
            return Ok(());
        };
        if open.inodes.len() <= keep_bytes {
            return Ok(());
        }
        let (at, mut inodes) = (open.inodes_at, std::mem::take(&mut open.inodes));
        self.put_inodes(at, &inodes)?;
        if let Some(open) = self.open.last_mut() {
            open.inodes_at += inodes.len() as u64;
            inodes.clear();
            open.inodes = inodes;
        }
        Ok(())
    }
}

impl<T: Target> Visitor for TreeWriter<'_, T> {
    fn enter(&mut self, name: &[u8]) -> Result<()> {
        let (parent, nid) = self.next_child()?;
        self.push_entry(Some((name, nid, Kind::Directory)))?;
        let inode = self.open_directory(nid, parent)?;
        let above = self
            .open
            .len()
            .checked_sub(2)
            .and_then(|above| self.open.get_mut(above));
        if let Some(above) = above {
            above.inodes.extend_from_slice(inode.as_bytes());
        }
        Ok(())
    }

    fn file(&mut self, name: &[u8], file: &FileRecord<'_>) -> Result<()> {
        let FileRecord {
            source,
            modified,
            size_bytes,
            id,
            validator,
        } = *file;
        let (parent, nid) = self.next_child()?;
        self.push_entry(Some((name, nid, Kind::File)))?;
        let shared = self.common.shared;
        let source = shared.sources.get(usize::from(source)).copied();
        let xattrs = FileXattrs {
            metacopy: (size_bytes > 0).then_some(shared.metacopy),
            source: source.ok_or(Error::corrupt("a file's source is not in the catalog", 0))?,
            id,
            validator,
        };
        let owner = self.common.owner;
        if let Some(open) = self.open.last_mut() {
            erofs::push_file_inode(&mut open.inodes, nid, &owner, size_bytes, modified, &xattrs);
        }
        self.flush_inodes(INODE_BUFFER_BYTES)?;
        self.target.index(&IndexEntry { id, nid, parent })
    }

    fn leave(&mut self) -> Result<()> {
        self.push_entry(None)?;
        self.flush_inodes(0)?;
        if let Some(mut open) = self.open.pop() {
            open.block.take(&mut self.block_bytes);
            self.target.put(open.next_block * BLOCK, &self.block_bytes)?;
        }
        Ok(())
    }

    fn refuse(&mut self, _reason: Refusal, _path: &[u8], _file: &FileRecord<'_>) -> Result<()> {
        Ok(())
    }
}

const _: () = assert!(INODE_BYTES.is_multiple_of(SLOT));
