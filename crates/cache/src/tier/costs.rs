//! Costs of files and directories on a tier's file system.
//!
//! A file's cost depends on its size alone, so that nothing has to be remembered for each object: a scan of the directory
//! adds up to what the reservations added up to. It is an upper bound of `st_blocks`: whole blocks, the extent tree
//! of a large file, the seal. Directories never shrink on most file systems, so theirs is charged by the most entries
//! that they have had at once.

use std::io;

use bytes::Bytes;
use rustix::fs::{fstat, fstatfs, fstatvfs};

use super::block::BLOCK_BYTES;
use super::directory::{Directory, TierDir};

/// Objects of so many blocks or fewer carry their seal in an extended attribute. With 256-byte inodes, ext4 keeps
/// this one (32 bytes and the name) in the inode itself; one that is longer takes a block of its own.
pub(crate) const XATTR_SEAL_BLOCKS: u64 = 8;

/// A directory entry of 24 or 26 characters takes 36 bytes on ext4 and 40 on XFS; splits leave blocks half empty.
const ENTRY_BYTES: u64 = 80;

/// Bytes of an object for which one block of extent tree is charged. A leaf of ext4's holds 340 extents: enough for
/// free space in pieces of 100 KiB and less.
const EXTENT_BLOCK_SPAN_BYTES: u64 = 32 << 20;

/// The unit in which `st_blocks` counts.
const STAT_BLOCK_BYTES: u64 = 512;

/// What names `ab` of the 1,024 shards take in their directory, twice over.
const SHARD_NAMES_BYTES: u64 = 24 << 10;

/// `f_type` of a tmpfs.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// Bytes and inodes of a file system.
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

/// Costs of files on the tier's file system.
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
    /// Measures what files cost on a directory's file system, and what it can do.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn probe(directory: &Directory) -> io::Result<Self> {
        let is_tmpfs = fstatfs(directory.root())?.f_type == TMPFS_MAGIC;
        let statistics = fstatvfs(directory.root())?;
        let unit_bytes = statistics.f_frsize.max(4096);
        let longest = vec![0; usize::try_from(XATTR_SEAL_BLOCKS * 4).unwrap_or(usize::MAX)];
        let (xattrs, xattr_bytes) = match directory.write_temporary(&[] as &[Bytes], Some(&longest)) {
            Ok(name) => {
                let blocks = directory
                    .stat(TierDir::Temporary, &name)
                    .map_or(0, |stat| stat.st_blocks);
                directory.remove(TierDir::Temporary, &name)?;
                (true, disk_bytes(blocks))
            }
            Err(error) if [Some(libc::ENOTSUP), Some(libc::EPERM)].contains(&error.raw_os_error()) => {
                (false, 0)
            }
            // The probe's name is taken by a file that an earlier process left: everything in this place is garbage.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                directory.empty(TierDir::Temporary)?;
                return Self::probe(directory);
            }
            Err(error) => return Err(error),
        };
        // A tmpfs charges an inode for each name of a file, and takes attributes from the same account.
        let inodes_per_file = if is_tmpfs { 3 } else { 1 };
        Ok(Self {
            unit_bytes,
            xattrs,
            xattr_bytes,
            inodes_per_file,
            directory_blocks: !is_tmpfs,
        })
    }

    /// What the directories take that always exist, with `state.json` and its successor.
    pub(super) fn fixed(&self, directory: &Directory) -> DiskSpace {
        let mut fixed = DiskSpace {
            bytes: 2 * self.unit_bytes,
            inodes: 2,
        };
        for place in [TierDir::Root].into_iter().chain(TierDir::BELOW) {
            let names = match place {
                TierDir::Objects | TierDir::Landing if self.directory_blocks => SHARD_NAMES_BYTES,
                _ => 0,
            };
            let taken = fstat(directory.fd(place)).map_or(0, |stat| disk_bytes(stat.st_blocks));
            let bytes = self.directory(0).saturating_add(names).max(taken);
            // The flat places grow; what they have grown to is charged here, and their growth by the accounts.
            fixed = fixed.plus(DiskSpace { bytes, inodes: 1 });
        }
        fixed
    }

    fn units(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.unit_bytes).saturating_mul(self.unit_bytes)
    }

    /// Returns whether an object's seal is a file of its own.
    pub(crate) const fn seal_is_file(&self, size_bytes: u64) -> bool {
        !self.xattrs || size_bytes.div_ceil(BLOCK_BYTES) > XATTR_SEAL_BLOCKS
    }

    /// The cost of a seal file.
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

    /// The cost of a complete object with its seal.
    pub(crate) fn object(&self, size_bytes: u64) -> DiskSpace {
        if self.seal_is_file(size_bytes) {
            self.partial(size_bytes)
        } else {
            self.content(size_bytes)
        }
    }

    /// The cost of a partial object with its map, which becomes the seal file.
    pub(crate) fn partial(&self, size_bytes: u64) -> DiskSpace {
        self.content(size_bytes).plus(self.seal(size_bytes))
    }

    /// The bytes of a directory that has had so many entries.
    pub(crate) fn directory(&self, entries: u64) -> u64 {
        if !self.directory_blocks {
            return 0;
        }
        // One spare entry: a rename creates the new name before it removes the old.
        let bytes = (entries + 1) * ENTRY_BYTES;
        // Up to one block a directory has no index block.
        if bytes <= self.unit_bytes {
            self.unit_bytes
        } else {
            self.units(bytes) + self.unit_bytes
        }
    }
}

/// The bytes that `st_blocks` means.
pub(super) fn disk_bytes(blocks: i64) -> u64 {
    u64::try_from(blocks).unwrap_or(0) * STAT_BLOCK_BYTES
}
