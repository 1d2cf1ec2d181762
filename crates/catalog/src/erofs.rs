//! The parts of the EROFS format that a catalog uses, shared by its writer, reader and checker.
//!
//! The format is documented in the kernel (`fs/erofs/erofs_fs.h`). An image is, in this order:
//!
//! | blocks | content |
//! | --- | --- |
//! | 1 | the superblock, at byte 1024 |
//! | 1 or more | shared extended attributes: the metacopy mark, then one `user.millpond.source` for each source |
//! | any number | the directories' entries, full blocks for each directory |
//! | the rest | inodes, in slots of 32 bytes; the root's first |
//!
//! Directories are in the order of a tree walk; so do the inodes of each directory's children, which lie
//! together in the order of their names. There are no data blocks: a file is chunk-based and all of its (at least
//! 8 TiB large) chunks are holes, which are never read, because overlayfs reads the content from a data layer.

mod dirents;
mod disk;
mod xattrs;

pub(crate) use self::dirents::{DirentBlock, DirentCount, Dots, ENTRY_BYTES};
pub(crate) use self::disk::{
    DiskDirent, DiskInode, FILE_TYPE_DIRECTORY, FILE_TYPE_FILE, SUPERBLOCK_OFFSET, SuperBlock,
    SuperBlockContent,
};
pub(crate) use self::xattrs::{
    FileXattrs, PREFIXES, REDIRECT, SharedXattrs, VALIDATOR, XattrEntry, XattrHeader, without_prefix,
    xattr_bytes,
};

use zerocopy::IntoBytes;

use crate::Owner;
use millpond_core::Time;

/// Unit of directories and of the layout.
pub(crate) const BLOCK_BYTES: usize = 4096;
/// The value as `u64`, for offsets.
pub(crate) const BLOCK: u64 = BLOCK_BYTES as u64;
/// Unit of inode positions.
const SLOT_BYTES: usize = 32;
/// The value as `u64`, for offsets.
pub(crate) const SLOT: u64 = SLOT_BYTES as u64;
/// Every inode's length without its extended attributes and chunks.
pub(crate) const INODE_BYTES: u64 = 64;
/// The root's position, as the superblock holds it. Not 0, which programs treat as a deleted entry.
const ROOT: u16 = 1;
/// The value as `u64`, for offsets.
pub(crate) const ROOT_NID: u64 = ROOT as u64;
/// The block where shared extended attributes begin.
pub(crate) const SHARED_BLOCK: u32 = 1;

/// Logarithm of the chunk size in blocks: the largest possible.
pub(crate) const CHUNK_BITS: u32 = 31;
/// Length of a chunk: 8 TiB.
const CHUNK_BYTES: u64 = BLOCK << CHUNK_BITS;
/// Length of a chunk's entry in the block map.
const CHUNK_ENTRY_BYTES: u64 = 4;
/// The entry of a chunk without data.
const HOLE: u32 = u32::MAX;

/// Returns the length of a file's inode with its attributes and block map.
pub(crate) fn file_inode_bytes(size_bytes: u64, validator_bytes: usize) -> u64 {
    let xattrs = xattrs::file_xattr_bytes(size_bytes, validator_bytes) as u64;
    (INODE_BYTES + xattrs + block_map_bytes(size_bytes)).next_multiple_of(SLOT)
}

/// Appends a file's inode with its attributes and block map.
pub(crate) fn push_file_inode(
    bytes: &mut Vec<u8>,
    nid: u32,
    owner: &Owner,
    size_bytes: u64,
    modified: Time,
    xattrs: &FileXattrs<'_>,
) {
    let start = bytes.len();
    let units = xattrs::xattr_units(xattrs::file_xattr_bytes(size_bytes, xattrs.validator.len()));
    bytes.extend_from_slice(DiskInode::file(nid, owner, size_bytes, modified, units).as_bytes());
    xattrs.write(bytes);
    for _ in 0..block_map_bytes(size_bytes) / CHUNK_ENTRY_BYTES {
        bytes.extend_from_slice(&HOLE.to_le_bytes());
    }
    let padded = (bytes.len() - start).next_multiple_of(SLOT_BYTES);
    bytes.resize(start + padded, 0);
}

/// Returns the length of a file's block map.
const fn block_map_bytes(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(CHUNK_BYTES) * CHUNK_ENTRY_BYTES
}
