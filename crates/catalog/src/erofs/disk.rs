//! Fixed structures on disk.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{CHUNK_BITS, ROOT, SHARED_BLOCK};
use crate::{Kind, Owner};
use millpond_core::Time;

/// Offset of the superblock.
pub(crate) const SUPERBLOCK_OFFSET: u64 = 1024;

/// The file type bits of a regular file's mode.
const S_IFREG: u16 = 0o100_000;
/// The file type bits of a directory's mode.
const S_IFDIR: u16 = 0o040_000;

/// File type of a file in a directory entry.
pub(crate) const FILE_TYPE_FILE: u8 = 1;
/// File type of a directory in a directory entry.
pub(crate) const FILE_TYPE_DIRECTORY: u8 = 2;

const MAGIC: u32 = 0xE0F5_E1E2;
/// Feature: times are of the last modification.
const COMPAT_MTIME: u32 = 0x2;
/// Feature: chunk-based files.
const INCOMPAT_CHUNKED_FILE: u32 = 0x4;

/// Inode format: extended (64 bytes), entries in full blocks.
const FORMAT_DIRECTORY: u16 = 1;
/// Inode format: extended (64 bytes), chunk-based.
const FORMAT_FILE: u16 = 1 | 4 << 1;

/// The superblock.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct SuperBlock {
    magic: U32,
    checksum: U32,
    feature_compat: U32,
    block_bits: u8,
    extension_slots: u8,
    root_nid: U16,
    inodes: U64,
    build_time: U64,
    build_time_nanos: U32,
    blocks: U32,
    meta_block: U32,
    xattr_block: U32,
    uuid: [u8; 16],
    volume_name: [u8; 16],
    feature_incompat: U32,
    /// Compression, devices, fragments, attribute prefixes: unused.
    unused: [u8; 44],
}

/// Fields of a superblock that differ between catalogs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SuperBlockContent {
    /// Number of files and directories.
    pub(crate) inodes: u64,
    /// Start time of the listing.
    pub(crate) created: Time,
    /// The Dataset's size in blocks, for `df`; all bits set if it exceeds 32 bits (16 TiB).
    pub(crate) blocks: u32,
    /// First block of inodes.
    pub(crate) meta_block: u32,
    /// Identifies the index of the image.
    pub(crate) uuid: [u8; 16],
}

impl SuperBlock {
    pub(crate) fn new(content: &SuperBlockContent) -> Self {
        let SuperBlockContent {
            inodes,
            created,
            blocks,
            meta_block,
            uuid,
        } = *content;
        Self {
            magic: U32::new(MAGIC),
            checksum: U32::ZERO,
            feature_compat: U32::new(COMPAT_MTIME),
            block_bits: 12,
            extension_slots: 0,
            root_nid: U16::new(ROOT),
            inodes: U64::new(inodes),
            build_time: U64::new(created.secs.cast_unsigned()),
            build_time_nanos: U32::new(created.nanos),
            blocks: U32::new(blocks),
            meta_block: U32::new(meta_block),
            xattr_block: U32::new(SHARED_BLOCK),
            uuid,
            volume_name: *b"millpond\0\0\0\0\0\0\0\0",
            feature_incompat: U32::new(INCOMPAT_CHUNKED_FILE),
            unused: [0; 44],
        }
    }

    /// Returns the fields of a catalog's superblock; `None`: it is of another format.
    pub(crate) fn content(&self) -> Option<SuperBlockContent> {
        let content = SuperBlockContent {
            inodes: self.inodes.get(),
            created: Time {
                secs: self.build_time.get().cast_signed(),
                nanos: self.build_time_nanos.get(),
            },
            blocks: self.blocks.get(),
            meta_block: self.meta_block.get(),
            uuid: self.uuid,
        };
        (Self::new(&content).as_bytes() == self.as_bytes()).then_some(content)
    }
}

/// An inode without its attributes and block map.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct DiskInode {
    format: U16,
    /// Units of 4 bytes beyond the header, which counts as one; 0: no extended attributes.
    pub(crate) xattr_units: U16,
    pub(crate) mode: U16,
    reserved: U16,
    pub(crate) size_bytes: U64,
    /// A directory's first block; a file's chunk format.
    pub(crate) place: U32,
    number: U32,
    pub(crate) uid: U32,
    pub(crate) gid: U32,
    pub(crate) mtime: U64,
    pub(crate) mtime_nanos: U32,
    pub(crate) nlink: U32,
    reserved_end: [u8; 16],
}

impl DiskInode {
    pub(crate) fn file(nid: u32, owner: &Owner, size_bytes: u64, modified: Time, xattr_units: u16) -> Self {
        Self {
            format: U16::new(FORMAT_FILE),
            xattr_units: U16::new(xattr_units),
            mode: U16::new(S_IFREG | owner.file_mode),
            reserved: U16::ZERO,
            size_bytes: U64::new(size_bytes),
            place: U32::new(CHUNK_BITS),
            number: U32::new(nid),
            uid: U32::new(owner.uid),
            gid: U32::new(owner.gid),
            mtime: U64::new(modified.secs.cast_unsigned()),
            mtime_nanos: U32::new(modified.nanos),
            nlink: U32::new(1),
            reserved_end: [0; 16],
        }
    }

    pub(crate) fn directory(
        nid: u32,
        owner: &Owner,
        blocks: u32,
        first_block: u32,
        created: Time,
        nlink: u32,
    ) -> Self {
        Self {
            format: U16::new(FORMAT_DIRECTORY),
            xattr_units: U16::ZERO,
            mode: U16::new(S_IFDIR | owner.dir_mode),
            size_bytes: U64::new(u64::from(blocks) * super::BLOCK),
            place: U32::new(first_block),
            nlink: U32::new(nlink),
            ..Self::file(nid, owner, 0, created, 0)
        }
    }

    /// Returns its kind; `None`: not an inode of a catalog.
    pub(crate) fn kind(&self) -> Option<Kind> {
        match (self.format.get(), self.mode.get() & 0o170_000) {
            (FORMAT_FILE, S_IFREG) => Some(Kind::File),
            (FORMAT_DIRECTORY, S_IFDIR) => Some(Kind::Directory),
            _ => None,
        }
    }
}

/// A directory entry without its name.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct DiskDirent {
    pub(crate) nid: U64,
    /// Offset of the name in its block.
    pub(crate) name_offset: U16,
    pub(crate) file_type: u8,
    pub(crate) reserved: u8,
}

const _: () = assert!(size_of::<SuperBlock>() == 128);
const _: () = assert!(size_of::<DiskInode>() as u64 == super::INODE_BYTES);
const _: () = assert!(size_of::<DiskDirent>() == 12);
