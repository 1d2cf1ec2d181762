//! What files and directories cost on a tier's file system.
//!
//! A file's cost depends on its size alone, so that nothing has to be remembered for each object: what a walk of the
//! directory adds up is what the promises added up. It is an upper bound of `st_blocks`: whole blocks, the extent tree
//! of a large file, the seal. Directories never shrink on most file systems, so theirs is charged by the most entries
//! that they have had at once.

use super::block::BLOCK_BYTES;

/// Objects of so many blocks or fewer carry their seal in an extended attribute. With 256-byte inodes, ext4 keeps
/// this one (32 bytes and the name) in the inode itself; one that is longer takes a block of its own.
pub(crate) const XATTR_SEAL_BLOCKS: u64 = 8;

/// A directory entry of 24 or 26 characters takes 36 bytes on ext4 and 40 on XFS; splits leave blocks half empty.
const ENTRY_BYTES: u64 = 80;

/// Bytes of an object for which one block of extent tree is charged. A leaf of ext4's holds 340 extents: enough for
/// free space in pieces of 100 KiB and less.
const EXTENT_BLOCK_SPAN_BYTES: u64 = 32 << 20;

/// Bytes and inodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DiskSpace {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

impl DiskSpace {
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            inodes: self.inodes.saturating_add(other.inodes),
        }
    }

    pub(crate) const fn minus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(other.bytes),
            inodes: self.inodes.saturating_sub(other.inodes),
        }
    }

    pub(crate) const fn fits(self, capacity: Self) -> bool {
        self.bytes <= capacity.bytes && self.inodes <= capacity.inodes
    }
}

/// What files cost on the tier's file system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Costs {
    /// The file system's unit of allocation.
    pub(crate) unit_bytes: u64,
    /// Whether it has extended attributes for seals.
    pub(crate) xattrs: bool,
    /// Disk that a seal in an extended attribute takes outside of the inode.
    pub(crate) xattr_bytes: u64,
    /// Inodes that one file counts as: a tmpfs counts names and attributes as well.
    pub(crate) inodes_per_file: u64,
    /// Whether directories take blocks (a tmpfs's do not).
    pub(crate) directory_blocks: bool,
}

impl Costs {
    fn units(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.unit_bytes).saturating_mul(self.unit_bytes)
    }

    /// Whether an object's seal is a file of its own.
    pub(crate) const fn seal_is_file(&self, size_bytes: u64) -> bool {
        !self.xattrs || size_bytes.div_ceil(BLOCK_BYTES) > XATTR_SEAL_BLOCKS
    }

    /// A seal file.
    pub(crate) fn seal(&self, size_bytes: u64) -> DiskSpace {
        let seal_bytes = super::seal::file_bytes(size_bytes);
        DiskSpace {
            bytes: self.units(seal_bytes),
            inodes: self.inodes_per_file,
        }
    }

    fn content(&self, size_bytes: u64) -> DiskSpace {
        let extents = size_bytes / EXTENT_BLOCK_SPAN_BYTES * self.unit_bytes;
        let bytes = self
            .units(size_bytes)
            .saturating_add(extents)
            .saturating_add(self.xattr_bytes);
        DiskSpace {
            bytes,
            inodes: self.inodes_per_file,
        }
    }

    /// A complete object with its seal.
    pub(crate) fn object(&self, size_bytes: u64) -> DiskSpace {
        if self.seal_is_file(size_bytes) {
            self.partial(size_bytes)
        } else {
            self.content(size_bytes)
        }
    }

    /// A partial object with its map, which is a seal file in the making.
    pub(crate) fn partial(&self, size_bytes: u64) -> DiskSpace {
        self.content(size_bytes).plus(self.seal(size_bytes))
    }

    /// A directory that has had so many entries.
    pub(crate) fn directory(&self, entries: u64) -> u64 {
        if !self.directory_blocks {
            return 0;
        }
        // One spare entry: a rename makes the new name before it drops the old.
        let bytes = (entries + 1) * ENTRY_BYTES;
        // Up to one block a directory has no index block.
        if bytes <= self.unit_bytes {
            self.unit_bytes
        } else {
            self.units(bytes) + self.unit_bytes
        }
    }
}
