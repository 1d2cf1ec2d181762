//! Reads a catalog image.
//!
//! Everything is read in place from a memory map: nothing is cached or locked, and an image of any size needs no heap. A
//! reader trusts nothing: every offset, length and count is checked where it is used, and an invalid one is
//! [`Error::Corrupt`]. Whether the parts form a tree is checked only by [`check`](crate::check()).

mod directory;
mod xattrs;

use std::path::Path;

use zerocopy::FromBytes;

use self::directory::Directory;
pub use self::directory::{DirEntry, ReadDir};
use self::xattrs::Xattrs;
use crate::erofs::{
    BLOCK, DiskInode, INODE_BYTES, REDIRECT, ROOT_NID, SLOT, SUPERBLOCK_OFFSET, SuperBlock, SuperBlockContent,
};
use crate::io::Mapped;
use crate::name::PATH_MAX_BYTES;
use crate::{Error, Result};
use millpond_core::{ObjectId, Time};

/// Position of an inode in an image, in units of 32 bytes: the inode number that the kernel reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nid(pub u64);

/// Kind of an inode; a catalog has no other kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A regular file: one object.
    File,
    /// A directory.
    Directory,
}

/// Attributes of a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Position of the inode.
    pub nid: Nid,
    /// Kind of the inode.
    pub kind: Kind,
    /// Length: a file's object, a directory's entries.
    pub size_bytes: u64,
    /// Time of the last change.
    pub mtime: Time,
    /// Type and permission bits, as `st_mode`.
    pub mode: u16,
    /// Owning user.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Link count: 1 for a file; 2 plus the number of subdirectories for a directory.
    pub nlink: u32,
}

/// A mapped catalog image.
#[derive(Debug)]
pub struct Image {
    map: Mapped,
    superblock: SuperBlockContent,
}

impl Image {
    /// Maps an image. The file must never be changed or truncated afterwards.
    ///
    /// # Errors
    /// If it cannot be read, or its superblock is of another format.
    pub fn open(path: &Path) -> Result<Self> {
        let map = Mapped::open(path)?;
        let superblock =
            SuperBlock::read_from_bytes(map.bytes(SUPERBLOCK_OFFSET, size_of::<SuperBlock>())?).ok();
        let superblock = superblock
            .and_then(|superblock| superblock.content())
            // Bounds a walk over `inodes` inodes by the file's length.
            .filter(|superblock| superblock.inodes <= map.len() / INODE_BYTES)
            .ok_or(Error::corrupt(
                "the image has no superblock of a catalog",
                SUPERBLOCK_OFFSET,
            ))?;
        Ok(Self { map, superblock })
    }

    /// Returns the root directory.
    pub const fn root(&self) -> Nid {
        Nid(ROOT_NID)
    }

    /// Returns the number of files and directories in the superblock.
    pub const fn inodes(&self) -> u64 {
        self.superblock.inodes
    }

    /// Returns the Dataset's size in blocks of 4,096 bytes in the superblock, which `df` reports.
    pub const fn blocks(&self) -> u64 {
        self.superblock.blocks as u64
    }

    /// Reads the attributes of an inode.
    ///
    /// # Errors
    /// If there is no such inode.
    pub fn inode(&self, nid: Nid) -> Result<Inode> {
        let (disk, kind) = self.disk_inode(nid)?;
        Ok(Inode {
            nid,
            kind,
            size_bytes: disk.size_bytes.get(),
            mtime: Time {
                secs: disk.mtime.get().cast_signed(),
                nanos: disk.mtime_nanos.get(),
            },
            mode: disk.mode.get(),
            uid: disk.uid.get(),
            gid: disk.gid.get(),
            nlink: disk.nlink.get(),
        })
    }

    /// Looks up a name in a directory.
    ///
    /// # Errors
    /// If `dir` is not a directory, or damaged.
    pub fn lookup(&self, dir: Nid, name: &[u8]) -> Result<Option<DirEntry<'_>>> {
        self.directory(dir)?.lookup(name)
    }

    /// Lists a directory from the cookie `from`: 0, or the [`next`](DirEntry::next) of an entry.
    ///
    /// # Errors
    /// If `dir` is not a directory, or damaged.
    pub fn read_dir(&self, dir: Nid, from: u64) -> Result<ReadDir<'_>> {
        Ok(ReadDir::new(self.directory(dir)?, from))
    }

    /// Reads one extended attribute by its full name (`user.millpond.etag`); `None`: there is none of that name.
    ///
    /// # Errors
    /// If there is no such inode, or it is damaged.
    pub fn xattr(&self, nid: Nid, name: &[u8]) -> Result<Option<&[u8]>> {
        self.attributes(nid)?.get(name)
    }

    /// Reads all extended attributes, `trusted.overlay.*` included.
    ///
    /// # Errors
    /// If there is no such inode, or it is damaged.
    pub fn xattrs(&self, nid: Nid) -> Result<Vec<(Vec<u8>, &[u8])>> {
        self.attributes(nid)?.all()
    }

    /// Returns the id of a file's object.
    ///
    /// # Errors
    /// If `nid` is not a file, or damaged.
    pub fn object_id(&self, nid: Nid) -> Result<ObjectId> {
        let (_, kind) = self.disk_inode(nid)?;
        if kind != Kind::File {
            return Err(Error::WrongKind {
                nid: nid.0,
                wanted: "file",
            });
        }
        self.xattr(nid, REDIRECT)?
            .and_then(|redirect| ObjectId::from_path(redirect.strip_prefix(b"/")?))
            .ok_or(Error::corrupt("a file has no object", self.offset(nid)))
    }

    /// Returns the parent of a directory; the root's is the root.
    ///
    /// # Errors
    /// If `dir` is not a directory, or damaged.
    pub fn parent(&self, dir: Nid) -> Result<Nid> {
        let above = self.lookup(dir, b"..")?;
        Ok(above
            .ok_or(Error::corrupt("a directory has no parent", self.offset(dir)))?
            .nid)
    }

    /// Returns the path of an inode from the root, without a leading `/`; empty for the root itself.
    ///
    /// # Errors
    /// If `parent` has no entry for `nid`, or an inode on the path is damaged.
    pub fn path_of(&self, nid: Nid, parent: Nid) -> Result<Vec<u8>> {
        // Collected from the end to the start, then reversed.
        let mut reversed = Vec::new();
        let (mut below, mut directory) = (nid, parent);
        while below != self.root() {
            let name = self.directory(directory)?.name_of(below)?;
            let name = name.ok_or(Error::corrupt(
                "a directory has no entry for an inode",
                self.offset(below),
            ))?;
            if !reversed.is_empty() {
                reversed.push(b'/');
            }
            reversed.extend(name.iter().rev());
            if reversed.len() > PATH_MAX_BYTES {
                return Err(Error::corrupt("a path is too long", self.offset(below)));
            }
            below = directory;
            directory = self.parent(directory)?;
        }
        reversed.reverse();
        Ok(reversed)
    }

    pub(crate) const fn superblock(&self) -> &SuperBlockContent {
        &self.superblock
    }

    /// Returns all bytes of the image.
    pub(crate) const fn map(&self) -> &Mapped {
        &self.map
    }

    /// Returns references to the shared attributes of an inode.
    pub(crate) fn shared_xattrs(&self, nid: Nid) -> Result<impl Iterator<Item = u32> + '_> {
        Ok(self.attributes(nid)?.references())
    }

    fn disk_inode(&self, nid: Nid) -> Result<(DiskInode, Kind)> {
        let offset = self.offset(nid);
        let bytes = self.map.bytes(offset, size_of::<DiskInode>())?;
        let disk = DiskInode::read_from_bytes(bytes).ok();
        disk.and_then(|disk| Some((disk, disk.kind()?)))
            .ok_or(Error::corrupt("there is no inode", offset))
    }

    fn directory(&self, dir: Nid) -> Result<Directory<'_>> {
        let (disk, kind) = self.disk_inode(dir)?;
        if kind != Kind::Directory {
            return Err(Error::WrongKind {
                nid: dir.0,
                wanted: "directory",
            });
        }
        Directory::new(
            &self.map,
            u64::from(disk.place.get()) * BLOCK,
            disk.size_bytes.get(),
        )
    }

    fn attributes(&self, nid: Nid) -> Result<Xattrs<'_>> {
        let (disk, _) = self.disk_inode(nid)?;
        Xattrs::new(
            &self.map,
            self.offset(nid).saturating_add(INODE_BYTES),
            disk.xattr_units.get(),
        )
    }

    /// Returns the offset of an inode; beyond the end for an invalid one.
    const fn offset(&self, nid: Nid) -> u64 {
        (self.superblock.meta_block as u64 * BLOCK).saturating_add(nid.0.saturating_mul(SLOT))
    }
}
