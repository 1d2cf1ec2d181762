//! Objects of which some blocks are here.
//!
//! The data lie at their final offsets in one file, preallocated to the object's size; which blocks are true stands in
//! the map (`seal.rs`). A block is written before its entry, so the map never promises what is not there. With the last
//! block it is published (`publish.rs`). Which partial objects there are, and who has them open, is in `partials.rs`.
//!
//! A partial object is in no layer of a view: only this process has it open, through its [`Partial`], and maps of it live
//! no longer than that, or than the answers that hold them.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use memmap2::Mmap;
use millpond_core::Mapping;
use millpond_core::ObjectId;
use parking_lot::Mutex;
use rustix::io::Errno;
use tracing::warn;

use super::Tier;
use super::accounting::SpaceReservation;
use super::block::{BLOCK_BYTES, BlockIndex};
use super::error::NotStored;
use super::io::map;
use super::objects::shared;
use super::seal::{self, BlockCrc, block_is_right};

/// How far a partial object has come.
#[derive(Clone, Debug)]
pub enum Progress {
    /// Blocks are missing.
    Incomplete,
    /// The object is complete and published; this is the file.
    Complete(Arc<File>),
}

/// What is known of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Missing,
    /// Written before a crash of the machine: to be compared with its checksum.
    Unchecked(BlockCrc),
    Here(BlockCrc),
}

#[derive(Debug)]
struct Blocks {
    states: Vec<Block>,
    here: usize,
    /// Open until the object is published, and no longer: a writer would keep it from being executed, and a map that has
    /// no name any more would take room.
    files: Option<Arc<Files>>,
}

/// What blocks are written to.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) data: File,
    pub(super) map: File,
}

/// An object of which some blocks are here.
///
/// Shared by all who read the object at one time; what is here stays when it is dropped.
#[derive(Debug)]
pub struct Partial {
    id: ObjectId,
    size_bytes: u64,
    tier: Arc<Tier>,
    blocks: Mutex<Blocks>,
    reader: Arc<File>,
    map: OnceLock<Arc<Mmap>>,
    complete: OnceLock<Arc<File>>,
    pub(super) publishing: Mutex<()>,
    /// The room of the file where the object turned out to be complete already, as another file.
    pub(super) double: Mutex<Option<SpaceReservation>>,
}

impl Partial {
    /// An object whose blocks are as its map says; what another epoch has written is to be checked.
    pub(super) fn new(
        tier: &Arc<Tier>,
        id: ObjectId,
        size_bytes: u64,
        files: Files,
        reader: File,
        entries: Vec<seal::Entry>,
    ) -> Self {
        let states: Vec<_> = entries
            .into_iter()
            .map(|entry| match entry.epoch {
                None => Block::Missing,
                Some(epoch) if epoch == tier.epoch() => Block::Here(entry.crc),
                Some(_) => Block::Unchecked(entry.crc),
            })
            .collect();
        let here = states
            .iter()
            .filter(|state| matches!(state, Block::Here(_)))
            .count();
        let blocks = Blocks {
            states,
            here,
            files: Some(Arc::new(files)),
        };
        Self::with(tier, id, size_bytes, blocks, shared(reader), OnceLock::new())
    }

    /// A complete object in the shape of a partial one that misses nothing.
    pub(super) fn whole(tier: &Arc<Tier>, id: ObjectId, size_bytes: u64, file: File) -> Self {
        let blocks = Blocks {
            states: Vec::new(),
            here: 0,
            files: None,
        };
        let reader = shared(file);
        let complete = OnceLock::from(Arc::clone(&reader));
        Self::with(tier, id, size_bytes, blocks, reader, complete)
    }

    fn with(
        tier: &Arc<Tier>,
        id: ObjectId,
        size_bytes: u64,
        blocks: Blocks,
        reader: Arc<File>,
        complete: OnceLock<Arc<File>>,
    ) -> Self {
        Self {
            id,
            size_bytes,
            tier: Arc::clone(tier),
            blocks: Mutex::new(blocks),
            reader,
            map: OnceLock::new(),
            complete,
            publishing: Mutex::new(()),
            double: Mutex::new(None),
        }
    }

    /// The object.
    pub const fn id(&self) -> ObjectId {
        self.id
    }

    /// Its length in bytes.
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The complete file, once all of it is here and published.
    pub fn complete(&self) -> Option<Arc<File>> {
        self.complete.get().cloned()
    }

    /// The blocks that overlap `range` and have to be fetched, in order.
    ///
    /// Blocks that came through a crash of the machine are checked first (which reads them); the rest costs nothing.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn missing(self: &Arc<Self>, range: Range<u64>) -> Vec<BlockIndex> {
        if self.complete.get().is_some() {
            return Vec::new();
        }
        let wanted = self.indices(&range);
        let (missing, is_any_unchecked) = self.look(wanted.clone());
        if !is_any_unchecked {
            return missing;
        }
        let this = Arc::clone(self);
        let checked = wanted.clone();
        // An error means that the runtime is going down: what was not checked counts as missing.
        tokio::task::spawn_blocking(move || this.check(checked))
            .await
            .ok();
        self.look(wanted).0
    }

    /// Keeps one block: `content` is exactly that block's bytes, checked on arrival.
    ///
    /// A block that is here already is left alone.
    ///
    /// # Errors
    /// The block was not kept (and is still missing).
    ///
    /// # Cancel safety
    /// Safe: the block is kept or not, never half.
    pub async fn write(
        self: &Arc<Self>,
        block: BlockIndex,
        content: Vec<Bytes>,
    ) -> Result<Progress, NotStored> {
        let this = Arc::clone(self);
        match tokio::task::spawn_blocking(move || this.write_block(block, &content)).await {
            Ok(progress) => progress,
            Err(_stopping) => Err(NotStored::Failed),
        }
    }

    /// The bytes of `range` as they lie in the file, if all of its blocks are here and were checked.
    pub fn map(&self, range: Range<u64>) -> Option<Mapping> {
        if range.end > self.size_bytes {
            return None;
        }
        if self.complete.get().is_none() {
            let blocks = self.blocks.lock();
            let states = blocks.states.get(self.indices(&range))?;
            if !states.iter().all(|state| matches!(state, Block::Here(_))) {
                return None;
            }
        }
        if self.map.get().is_none() {
            match map(&self.reader) {
                Ok(made) => self.map.set(Arc::new(made)).unwrap_or_default(),
                Err(error) => {
                    self.tier.failed("map an object", &error);
                    return None;
                }
            }
        }
        let (start, end) = (
            usize::try_from(range.start).ok()?,
            usize::try_from(range.end).ok()?,
        );
        Mapping::new(Arc::clone(self.map.get()?), start..end)
    }

    /// The indices of the blocks that overlap a range.
    fn indices(&self, range: &Range<u64>) -> Range<usize> {
        let end = range.end.min(self.size_bytes);
        let first = usize::try_from(range.start.min(end) / BLOCK_BYTES).unwrap_or(usize::MAX);
        let last = usize::try_from(end.div_ceil(BLOCK_BYTES)).unwrap_or(usize::MAX);
        if range.start >= end {
            first..first
        } else {
            first..last
        }
    }

    /// Which blocks are not here, and whether some of them only have to be checked.
    fn look(&self, wanted: Range<usize>) -> (Vec<BlockIndex>, bool) {
        let blocks = self.blocks.lock();
        let mut missing = Vec::new();
        let mut is_any_unchecked = false;
        for (state, index) in blocks
            .states
            .get(wanted.clone())
            .unwrap_or_default()
            .iter()
            .zip(wanted)
        {
            if !matches!(state, Block::Here(_)) {
                missing.extend(u32::try_from(index).ok().map(BlockIndex));
            }
            is_any_unchecked |= matches!(state, Block::Unchecked(_));
        }
        (missing, is_any_unchecked)
    }

    fn write_block(self: &Arc<Self>, block: BlockIndex, content: &[Bytes]) -> Result<Progress, NotStored> {
        if let Some(file) = self.complete() {
            return Ok(Progress::Complete(file));
        }
        let position = usize::try_from(block.0).unwrap_or(usize::MAX);
        let offset = u64::from(block.0) * BLOCK_BYTES;
        let length: u64 = content.iter().map(|chunk| chunk.len() as u64).sum();
        if length == 0 || length != seal::block_bytes(self.size_bytes, u64::from(block.0)) {
            self.tier.failed(
                "keep a block",
                &io::Error::other("content is not as long as its block"),
            );
            return Err(NotStored::Failed);
        }
        let files = {
            let blocks = self.blocks.lock();
            match blocks.states.get(position) {
                // A map of it may be out: it must not be written again.
                Some(Block::Here(_)) => None,
                _ => blocks.files.clone(),
            }
        };
        let Some(files) = files else {
            return Ok(self.complete().map_or(Progress::Incomplete, Progress::Complete));
        };
        let crc = seal::of_block(content);
        let written = write_at(&files.data, offset, content)
            .and_then(|()| seal::write_entry(&files.map, block, crc, self.tier.epoch()));
        drop(files);
        if let Err(error) = written {
            self.tier.failed("keep a block", &error);
            return Err(NotStored::Failed);
        }
        self.landed(position, crc);
        self.publish_if_complete()
    }

    fn landed(&self, position: usize, crc: BlockCrc) {
        let mut blocks = self.blocks.lock();
        let Some(state) = blocks.states.get_mut(position) else {
            return;
        };
        let was = std::mem::replace(state, Block::Here(crc));
        if !matches!(was, Block::Here(_)) {
            blocks.here += 1;
        }
    }

    /// Compares all that came through a crash with its checksums; blocks.
    pub(crate) fn check_all(self: &Arc<Self>) {
        self.check(self.indices(&(0..self.size_bytes)));
    }

    /// Compares what came through a crash with its checksums.
    fn check(self: &Arc<Self>, wanted: Range<usize>) {
        let files = self.blocks.lock().files.clone();
        if let Some(files) = files {
            let mut buffer = Vec::new();
            for position in wanted {
                self.check_block(position, &files.map, &mut buffer);
            }
        }
        // What fails here is tried again with the next block.
        self.publish_if_complete().ok();
    }

    fn check_block(&self, position: usize, map: &File, buffer: &mut Vec<u8>) {
        let state = self.blocks.lock().states.get(position).copied();
        let (Some(Block::Unchecked(crc)), Ok(index)) = (state, u32::try_from(position)) else {
            return;
        };
        let block = BlockIndex(index);
        match block_is_right(&self.reader, self.size_bytes, u64::from(index), crc, buffer) {
            Ok(true) => match seal::write_entry(map, block, crc, self.tier.epoch()) {
                Ok(()) => self.landed(position, crc),
                Err(error) => self.tier.failed("note a block", &error),
            },
            Ok(false) => {
                warn!(id = %self.id, block = index, "a block did not come through the crash whole, it will be fetched again");
                self.tier.counters().corrupt.fetch_add(1, Ordering::Relaxed);
                self.lost(position);
                if let Err(error) = seal::erase_entry(map, block) {
                    self.tier.failed("note a block", &error);
                }
            }
            Err(error) => {
                self.tier.failed("read a block", &error);
                self.lost(position);
            }
        }
    }

    fn lost(&self, position: usize) {
        if let Some(state @ Block::Unchecked(_)) = self.blocks.lock().states.get_mut(position) {
            *state = Block::Missing;
        }
    }

    /// Whether no block is missing any more.
    pub(super) fn is_complete(&self) -> bool {
        let blocks = self.blocks.lock();
        blocks.here == blocks.states.len()
    }

    /// The checksums of all blocks that are here.
    pub(super) fn crcs(&self) -> Vec<BlockCrc> {
        let blocks = self.blocks.lock();
        let here = blocks.states.iter().filter_map(|state| match state {
            Block::Here(crc) => Some(*crc),
            Block::Missing | Block::Unchecked(_) => None,
        });
        here.collect()
    }

    /// Closes what blocks are written to: for good, when none is missing any more.
    pub(super) fn close_files(&self) {
        let files = self.blocks.lock().files.take();
        // Whoever is writing a block that came twice is soon done; nobody else finds the files any more.
        while files.as_ref().is_some_and(|files| Arc::strong_count(files) > 1) {
            std::thread::yield_now();
        }
    }

    pub(super) const fn tier(&self) -> &Arc<Tier> {
        &self.tier
    }

    pub(super) const fn reader(&self) -> &Arc<File> {
        &self.reader
    }

    /// Says that the object is complete.
    pub(super) fn completed(&self) -> Arc<File> {
        Arc::clone(self.complete.get_or_init(|| Arc::clone(&self.reader)))
    }
}

/// Writes all pieces from `offset` on.
fn write_at(file: &File, offset: u64, content: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<_> = content
        .iter()
        .filter(|chunk| !chunk.is_empty())
        .map(|chunk| io::IoSlice::new(chunk))
        .collect();
    let mut rest = &mut slices[..];
    let mut position = offset;
    while !rest.is_empty() {
        // As many pieces as the kernel takes in one call.
        let count = rest.len().min(1024);
        match rustix::io::pwritev(file, rest.get(..count).unwrap_or_default(), position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                position += written as u64;
                io::IoSlice::advance_slices(&mut rest, written);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
