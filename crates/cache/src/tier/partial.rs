//! Objects of which some blocks are cached.
//!
//! The data lie at their final offsets in one file, preallocated to the object's size; which blocks are valid is in the
//! map (`seal.rs`). A block is written before its entry, so every block that the map names is in the file. With the last
//! block the object is published (`partials.rs`). Which partial objects there are, and which are open, is in
//! `partial_table.rs`.
//!
//! A partial object is in no layer of a view: only this process has it open, through its [`Partial`], and maps of it live
//! no longer than that, or than the responses that hold them.

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

use super::accounting::SpaceReservation;
use super::block::{BLOCK_BYTES, BlockIndex};
use super::error::NotStored;
use super::io::map;
use super::partials::Partials;
use super::seal::{self, BlockCrc, block_is_right};

/// How far a partial object has come.
#[derive(Clone, Debug)]
pub enum Progress {
    /// Blocks are missing.
    Incomplete,
    /// The object is complete and published; this is the file.
    Complete(Arc<File>),
}

/// State of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Missing,
    /// Written before a crash of the machine: to be compared with its checksum.
    Unchecked(BlockCrc),
    Cached(BlockCrc),
}

#[derive(Debug)]
struct Blocks {
    states: Vec<Block>,
    cached: usize,
    /// Open until the object is published, and no longer: a writer would keep it from being executed, and a map without a
    /// name would take space.
    files: Option<Arc<Files>>,
}

/// The files that blocks are written to.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) data: File,
    pub(super) map: File,
}

/// An object of which some blocks are cached.
///
/// Shared by all readers of the object; the blocks stay when it is dropped.
#[derive(Debug)]
pub struct Partial {
    id: ObjectId,
    size_bytes: u64,
    partials: Arc<Partials>,
    blocks: Mutex<Blocks>,
    reader: Arc<File>,
    map: OnceLock<Arc<Mmap>>,
    complete: OnceLock<Arc<File>>,
    publishing: Mutex<()>,
    /// The space of the file where the object turned out to be complete already, as another file.
    duplicate: Mutex<Option<SpaceReservation>>,
}

impl Partial {
    /// An object whose blocks are as its map says; those that another epoch has written are to be checked.
    pub(super) fn new(
        partials: &Arc<Partials>,
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
                Some(epoch) if epoch == partials.epoch() => Block::Cached(entry.crc),
                Some(_) => Block::Unchecked(entry.crc),
            })
            .collect();
        let cached = states
            .iter()
            .filter(|state| matches!(state, Block::Cached(_)))
            .count();
        let blocks = Blocks {
            states,
            cached,
            files: Some(Arc::new(files)),
        };
        Self::with(
            partials,
            id,
            size_bytes,
            blocks,
            Arc::new(reader),
            OnceLock::new(),
        )
    }

    /// A complete object as a partial one that misses no block.
    pub(super) fn of_complete(partials: &Arc<Partials>, id: ObjectId, size_bytes: u64, file: File) -> Self {
        let blocks = Blocks {
            states: Vec::new(),
            cached: 0,
            files: None,
        };
        let reader = Arc::new(file);
        let complete = OnceLock::from(Arc::clone(&reader));
        Self::with(partials, id, size_bytes, blocks, reader, complete)
    }

    fn with(
        partials: &Arc<Partials>,
        id: ObjectId,
        size_bytes: u64,
        blocks: Blocks,
        reader: Arc<File>,
        complete: OnceLock<Arc<File>>,
    ) -> Self {
        Self {
            id,
            size_bytes,
            partials: Arc::clone(partials),
            blocks: Mutex::new(blocks),
            reader,
            map: OnceLock::new(),
            complete,
            publishing: Mutex::new(()),
            duplicate: Mutex::new(None),
        }
    }

    /// Returns the object's id.
    pub const fn id(&self) -> ObjectId {
        self.id
    }

    /// Returns the object's length in bytes.
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Returns the complete file, once the object is published.
    pub fn complete(&self) -> Option<Arc<File>> {
        self.complete.get().cloned()
    }

    /// Returns the blocks that overlap `range` and have to be fetched, in order.
    ///
    /// Blocks that survived a crash of the machine are checked first (which reads them); the rest costs nothing.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn missing(self: &Arc<Self>, range: Range<u64>) -> Vec<BlockIndex> {
        if self.complete.get().is_some() {
            return Vec::new();
        }
        let wanted = self.indices(&range);
        let (missing, has_unchecked) = self.missing_in(wanted.clone());
        if !has_unchecked {
            return missing;
        }
        let this = Arc::clone(self);
        let checked = wanted.clone();
        // An error means that the runtime is shutting down: blocks that were not checked count as missing.
        tokio::task::spawn_blocking(move || this.check(checked))
            .await
            .ok();
        self.missing_in(wanted).0
    }

    /// Stores one block: `content` is exactly that block's bytes, checked on arrival.
    ///
    /// A block that is cached already is not written again.
    ///
    /// # Errors
    /// The block was not stored (and is still missing).
    ///
    /// # Cancel safety
    /// Safe: the block is stored or not, never half.
    pub async fn write(
        self: &Arc<Self>,
        block: BlockIndex,
        content: Vec<Bytes>,
    ) -> Result<Progress, NotStored> {
        let this = Arc::clone(self);
        match tokio::task::spawn_blocking(move || this.write_block(block, &content)).await {
            Ok(progress) => progress,
            Err(_shutting_down) => Err(NotStored::Failed),
        }
    }

    /// Maps the bytes of `range` as they lie in the file, if all of its blocks are cached and were checked.
    pub fn map(&self, range: Range<u64>) -> Option<Mapping> {
        if range.end > self.size_bytes {
            return None;
        }
        if self.complete.get().is_none() {
            let blocks = self.blocks.lock();
            let states = blocks.states.get(self.indices(&range))?;
            if !states.iter().all(|state| matches!(state, Block::Cached(_))) {
                return None;
            }
        }
        if self.map.get().is_none() {
            match map(&self.reader) {
                Ok(made) => self.map.set(Arc::new(made)).unwrap_or_default(),
                Err(error) => {
                    self.partials.files().failed("map an object", &error);
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

    /// The blocks that are not cached, and whether some of them only have to be checked.
    fn missing_in(&self, wanted: Range<usize>) -> (Vec<BlockIndex>, bool) {
        let blocks = self.blocks.lock();
        let mut missing = Vec::new();
        let mut has_unchecked = false;
        for (state, index) in blocks
            .states
            .get(wanted.clone())
            .unwrap_or_default()
            .iter()
            .zip(wanted)
        {
            if !matches!(state, Block::Cached(_)) {
                missing.extend(u32::try_from(index).ok().map(BlockIndex));
            }
            has_unchecked |= matches!(state, Block::Unchecked(_));
        }
        (missing, has_unchecked)
    }

    fn write_block(self: &Arc<Self>, block: BlockIndex, content: &[Bytes]) -> Result<Progress, NotStored> {
        if let Some(file) = self.complete() {
            return Ok(Progress::Complete(file));
        }
        let position = usize::try_from(block.0).unwrap_or(usize::MAX);
        let offset = u64::from(block.0) * BLOCK_BYTES;
        let length: u64 = content.iter().map(|chunk| chunk.len() as u64).sum();
        if length == 0 || length != seal::block_bytes(self.size_bytes, u64::from(block.0)) {
            self.partials.files().failed(
                "store a block",
                &io::Error::other("content is not as long as its block"),
            );
            return Err(NotStored::Failed);
        }
        let files = {
            let blocks = self.blocks.lock();
            match blocks.states.get(position) {
                // A reader may have a map of it: it must not be written again.
                Some(Block::Cached(_)) => None,
                _ => blocks.files.clone(),
            }
        };
        let Some(files) = files else {
            return Ok(self.complete().map_or(Progress::Incomplete, Progress::Complete));
        };
        let crc = seal::of_block(content);
        let written = write_at(&files.data, offset, content)
            .and_then(|()| seal::write_entry(&files.map, block, crc, self.partials.epoch()));
        drop(files);
        if let Err(error) = written {
            self.partials.files().failed("store a block", &error);
            return Err(NotStored::Failed);
        }
        self.mark_cached(position, crc);
        self.publish_if_complete()
    }

    fn mark_cached(&self, position: usize, crc: BlockCrc) {
        let mut blocks = self.blocks.lock();
        let Some(state) = blocks.states.get_mut(position) else {
            return;
        };
        let was = std::mem::replace(state, Block::Cached(crc));
        if !matches!(was, Block::Cached(_)) {
            blocks.cached += 1;
        }
    }

    /// Compares all blocks that survived a crash with their checksums; blocks the thread.
    pub(crate) fn check_all(self: &Arc<Self>) {
        self.check(self.indices(&(0..self.size_bytes)));
    }

    /// Compares blocks that survived a crash with their checksums.
    fn check(self: &Arc<Self>, wanted: Range<usize>) {
        let files = self.blocks.lock().files.clone();
        if let Some(files) = files {
            let mut buffer = Vec::new();
            for position in wanted {
                self.check_block(position, &files.map, &mut buffer);
            }
        }
        // A failure is tried again with the next block.
        self.publish_if_complete().ok();
    }

    fn check_block(&self, position: usize, map: &File, buffer: &mut Vec<u8>) {
        let state = self.blocks.lock().states.get(position).copied();
        let (Some(Block::Unchecked(crc)), Ok(index)) = (state, u32::try_from(position)) else {
            return;
        };
        let block = BlockIndex(index);
        match block_is_right(&self.reader, self.size_bytes, u64::from(index), crc, buffer) {
            Ok(true) => match seal::write_entry(map, block, crc, self.partials.epoch()) {
                Ok(()) => self.mark_cached(position, crc),
                Err(error) => self.partials.files().failed("record a block", &error),
            },
            Ok(false) => {
                warn!(object = %self.id, block = index, "block failed verification after a crash; fetched again on next read");
                self.partials
                    .files()
                    .counters()
                    .corrupt
                    .fetch_add(1, Ordering::Relaxed);
                self.mark_missing(position);
                if let Err(error) = seal::erase_entry(map, block) {
                    self.partials.files().failed("record a block", &error);
                }
            }
            Err(error) => {
                self.partials.files().failed("read a block", &error);
                self.mark_missing(position);
            }
        }
    }

    fn mark_missing(&self, position: usize) {
        if let Some(state @ Block::Unchecked(_)) = self.blocks.lock().states.get_mut(position) {
            *state = Block::Missing;
        }
    }

    /// Gives the file its name in `objects/` when no block is missing.
    pub(crate) fn publish_if_complete(&self) -> Result<Progress, NotStored> {
        if !self.is_complete() {
            return Ok(Progress::Incomplete);
        }
        let _only = self.publishing.lock();
        if let Some(file) = self.complete() {
            return Ok(Progress::Complete(file));
        }
        self.close_files();
        self.partials.publish(self)?;
        let file = self.complete.get_or_init(|| Arc::clone(&self.reader));
        Ok(Progress::Complete(Arc::clone(file)))
    }

    /// Whether no block is missing.
    fn is_complete(&self) -> bool {
        let blocks = self.blocks.lock();
        blocks.cached == blocks.states.len()
    }

    /// The checksums of all blocks that are cached.
    pub(super) fn crcs(&self) -> Vec<BlockCrc> {
        let blocks = self.blocks.lock();
        let cached = blocks.states.iter().filter_map(|state| match state {
            Block::Cached(crc) => Some(*crc),
            Block::Missing | Block::Unchecked(_) => None,
        });
        cached.collect()
    }

    /// Closes the files that blocks are written to: for good, when none is missing.
    fn close_files(&self) {
        let files = self.blocks.lock().files.take();
        // A thread that writes a block that was fetched twice is soon done; no other thread finds the files any more.
        while files.as_ref().is_some_and(|files| Arc::strong_count(files) > 1) {
            std::thread::yield_now();
        }
    }

    pub(super) const fn reader(&self) -> &Arc<File> {
        &self.reader
    }

    /// Keeps the space of the file until it is closed: the object was complete already, as another file.
    pub(super) fn keep_duplicate(&self, reservation: SpaceReservation) {
        *self.duplicate.lock() = Some(reservation);
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
