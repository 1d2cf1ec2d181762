//! Checksums of objects: one CRC32C for each block.
//!
//! The seal of a small object is an extended attribute of its file: the checksums, four bytes each, little endian.
//! That of a larger one is a file of the same name in `seals/`. It begins as the map of the partial object: an entry
//! is written after its block, so that after a kill of this process each entry that exists is true. A
//! crash of the machine may lose blocks and keep entries; so an entry also carries the epoch in which its block was
//! written or verified, and each crash begins another one (`state.rs`).
//!
//! The file: 32 bytes of header (magic, layout version, block size, object size, CRC of these), then for each block 8
//! bytes (CRC, epoch; an epoch of 0 means that the block is missing). All little endian.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

use super::block::{BLOCK_BYTES, BlockIndex};
use super::state::Epoch;

/// Name of the extended attribute.
pub(crate) const SEAL_XATTR: &str = "user.millpond.seal";

const MAGIC: [u8; 8] = *b"MLPDSEAL";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 32;
const ENTRY_BYTES: usize = 8;

/// A seal file of an object of more blocks is not read: 16 TiB.
const MAX_BLOCKS: u64 = 1 << 24;

/// The checksum of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockCrc(pub(crate) u32);

/// Computes the checksum of a block.
#[derive(Debug)]
pub(crate) struct Hasher(Digest);

impl Hasher {
    pub(crate) fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> BlockCrc {
        let crc = self.0.finalize();
        BlockCrc(u32::try_from(crc).unwrap_or_else(|_| unreachable!("a CRC32C has 32 bits")))
    }
}

/// The number of blocks of an object.
pub(crate) const fn blocks(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(BLOCK_BYTES)
}

/// The length of a block of an object.
pub(crate) const fn block_bytes(size_bytes: u64, index: u64) -> u64 {
    let left = size_bytes.saturating_sub(index.saturating_mul(BLOCK_BYTES));
    if left < BLOCK_BYTES { left } else { BLOCK_BYTES }
}

/// The length of the seal file of an object.
pub(crate) const fn file_bytes(size_bytes: u64) -> u64 {
    HEADER_BYTES as u64 + blocks(size_bytes) * ENTRY_BYTES as u64
}

/// The checksums of a complete object.
pub(crate) fn of_content(content: &[Bytes]) -> Vec<BlockCrc> {
    let mut crcs = Vec::new();
    let mut hasher = Hasher::new();
    let mut filled = 0;
    for chunk in content {
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            let space = usize::try_from(BLOCK_BYTES - filled).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at(space.min(rest.len()));
            hasher.update(now);
            filled += now.len() as u64;
            rest = later;
            if filled == BLOCK_BYTES {
                crcs.push(std::mem::replace(&mut hasher, Hasher::new()).finish());
                filled = 0;
            }
        }
    }
    if filled > 0 {
        crcs.push(hasher.finish());
    }
    crcs
}

/// The checksum of some pieces.
pub(crate) fn of_block(content: &[Bytes]) -> BlockCrc {
    let mut hasher = Hasher::new();
    for chunk in content {
        hasher.update(chunk);
    }
    hasher.finish()
}

/// Reads one block and returns whether it is the one that was sealed.
///
/// # Errors
/// The read's.
pub(crate) fn block_is_right(
    file: &File,
    size_bytes: u64,
    index: u64,
    crc: BlockCrc,
    buffer: &mut Vec<u8>,
) -> io::Result<bool> {
    let length = usize::try_from(block_bytes(size_bytes, index)).unwrap_or(usize::MAX);
    buffer.resize(length, 0);
    match file.read_exact_at(buffer, index * BLOCK_BYTES) {
        Ok(()) => {
            let mut hasher = Hasher::new();
            hasher.update(buffer);
            Ok(hasher.finish() == crc)
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The attribute's value.
pub(crate) fn to_xattr(crcs: &[BlockCrc]) -> Vec<u8> {
    crcs.iter().flat_map(|crc| crc.0.to_le_bytes()).collect()
}

/// The checksums in an attribute, or `None` where it is not the seal of an object of this size.
pub(crate) fn from_xattr(value: &[u8], size_bytes: u64) -> Option<Vec<BlockCrc>> {
    let (words, rest) = value.as_chunks::<4>();
    (rest.is_empty() && words.len() as u64 == blocks(size_bytes)).then(|| {
        words
            .iter()
            .map(|word| BlockCrc(u32::from_le_bytes(*word)))
            .collect()
    })
}

/// One block's entry in a seal file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) crc: BlockCrc,
    /// When the block was written or last verified; `None`: it is missing.
    pub(crate) epoch: Option<Epoch>,
}

/// Begins a seal file without entries.
///
/// # Errors
/// The write's.
pub(crate) fn begin_file(file: &File, size_bytes: u64) -> io::Result<()> {
    // The whole length first: its blocks must be counted from the start, and entries are found by position.
    file.set_len(file_bytes(size_bytes))?;
    file.write_all_at(&header(size_bytes), 0)
}

/// Writes a complete seal file.
///
/// # Errors
/// The write's.
pub(crate) fn write_file(file: &File, size_bytes: u64, crcs: &[BlockCrc], epoch: Epoch) -> io::Result<()> {
    let mut bytes = header(size_bytes).to_vec();
    for crc in crcs {
        bytes.extend(to_entry(*crc, epoch));
    }
    file.write_all_at(&bytes, 0)
}

/// Records that a block is cached.
///
/// # Errors
/// The write's.
pub(crate) fn write_entry(file: &File, block: BlockIndex, crc: BlockCrc, epoch: Epoch) -> io::Result<()> {
    file.write_all_at(&to_entry(crc, epoch), entry_offset(block))
}

/// Records that a block is missing.
///
/// # Errors
/// The write's.
pub(crate) fn erase_entry(file: &File, block: BlockIndex) -> io::Result<()> {
    file.write_all_at(&[0; ENTRY_BYTES], entry_offset(block))
}

/// Reads a seal file; `None` where it is not one of an object of this size.
///
/// # Errors
/// The read's.
pub(crate) fn read_file(file: &File, size_bytes: u64) -> io::Result<Option<Vec<Entry>>> {
    if blocks(size_bytes) > MAX_BLOCKS || file.metadata()?.len() != file_bytes(size_bytes) {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(file_bytes(size_bytes)).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, 0)?;
    let Some((found, entries)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    if *found != header(size_bytes) {
        return Ok(None);
    }
    let (entries, _) = entries.as_chunks::<ENTRY_BYTES>();
    Ok(Some(entries.iter().copied().map(from_entry).collect()))
}

fn header(size_bytes: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let (checked, crc) = header.split_at_mut(HEADER_BYTES - 4);
    let fields = MAGIC
        .into_iter()
        .chain(VERSION.to_le_bytes())
        .chain(BLOCK_BYTES.to_le_bytes())
        .chain(size_bytes.to_le_bytes());
    for (byte, field) in checked.iter_mut().zip(fields) {
        *byte = field;
    }
    let mut hasher = Hasher::new();
    hasher.update(checked);
    crc.copy_from_slice(&hasher.finish().0.to_le_bytes());
    header
}

fn entry_offset(block: BlockIndex) -> u64 {
    HEADER_BYTES as u64 + u64::from(block.0) * ENTRY_BYTES as u64
}

fn to_entry(crc: BlockCrc, epoch: Epoch) -> [u8; ENTRY_BYTES] {
    (u64::from(epoch.0.get()) << 32 | u64::from(crc.0)).to_le_bytes()
}

fn from_entry(bytes: [u8; ENTRY_BYTES]) -> Entry {
    let [a, b, c, d, e, f, g, h] = bytes;
    let epoch = std::num::NonZeroU32::new(u32::from_le_bytes([e, f, g, h])).map(Epoch);
    Entry {
        crc: BlockCrc(u32::from_le_bytes([a, b, c, d])),
        epoch,
    }
}
