//! Objects of which some blocks are here.
//!
//! The data lie at their final offsets in one file, preallocated to the object's size; which blocks are true stands in
//! the map (`seal.rs`). A block is written before its entry, so the map never promises what is not there. With the last
//! block the file is renamed into `objects/`: the same inode, so that maps and descriptors of it stay right.
//!
//! A partial object is in no layer of a view: only this process has it open, through its [`Partial`], and maps of it live
//! no longer than that, or than the answers that hold them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use catalog::ObjectId;
use memmap2::Mmap;
use parking_lot::Mutex;
use protocol::Mapping;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use tracing::warn;

use super::Tier;
use super::content::shared;
use super::directory::{Directory, Place, name_in};
use super::io::{map, write_lease};
use super::ledger::{Promise, shard_of};
use super::seal::{self, BlockCrc, block_is_right};
use super::stock::open_partial;
use crate::store::{BLOCK_BYTES, BlockIndex, NoRoom, Progress};

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
    /// Open for writing until the object is published, and no longer: a writer would keep it from being executed.
    writer: Option<Arc<File>>,
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
    map_file: Option<File>,
    map: OnceLock<Arc<Mmap>>,
    complete: OnceLock<Arc<File>>,
    publishing: Mutex<()>,
    /// The room of the file where the object turned out to be complete already, as another file.
    double: Mutex<Option<Promise>>,
}

/// The partial objects of a tier, open or not.
#[derive(Debug, Default)]
pub(crate) struct Partials {
    held: Mutex<HashMap<ObjectId, Held>>,
}

#[derive(Debug)]
struct Held {
    promise: Promise,
    size_bytes: u64,
    open: Weak<Partial>,
    /// Where it is being opened or made, nobody else may.
    busy: bool,
}

impl Partials {
    /// Whether there is a partial object.
    pub(crate) fn has(&self, id: ObjectId) -> bool {
        self.held.lock().contains_key(&id)
    }

    /// How long the object is of which some blocks are here.
    pub(crate) fn size_bytes(&self, id: ObjectId) -> Option<u64> {
        self.held.lock().get(&id).map(|held| held.size_bytes)
    }

    /// Removes a partial object that nobody has open or mapped. Says how long the object is, or nothing.
    pub(crate) fn evict(&self, directory: &Directory, id: ObjectId) -> Option<u64> {
        // Held all along: nobody may open it meanwhile, or make it anew before its files are gone.
        let mut held = self.held.lock();
        if held
            .get(&id)
            .is_none_or(|held| held.busy || held.open.strong_count() > 0)
        {
            return None;
        }
        let name = name_in(Place::Partial, id);
        let file = directory.open(Place::Partial, &name).ok()?;
        if file.as_ref().is_some_and(|file| !write_lease(file)) {
            return None;
        }
        directory.remove(Place::Partial, &name).ok()?;
        // The space is free when the last descriptor is closed, and promised to others when the entry is dropped.
        drop(file);
        let removed = held.remove(&id)?;
        directory.remove(Place::Seals, &name_in(Place::Seals, id)).ok();
        Some(removed.size_bytes)
    }

    /// Removes a partial object unless somebody has it open; whether there is none now.
    pub(crate) fn make_way(&self, directory: &Directory, id: ObjectId) -> bool {
        !self.has(id) || self.evict(directory, id).is_some()
    }

    /// Gives back the room of those whose files were deleted.
    pub(crate) fn forget_deleted(&self, directory: &Directory) {
        self.held.lock().retain(|id, held| {
            held.busy
                || held.open.strong_count() > 0
                || directory
                    .stat(Place::Partial, &name_in(Place::Partial, *id))
                    .is_some()
        });
    }
}

impl Tier {
    /// Finds the partial objects that are at rest in the directory.
    pub(super) fn count_partials(&self, directory: &Directory) -> io::Result<Vec<(ObjectId, u64)>> {
        let mut counted = Vec::new();
        for (name, _) in directory.list(Place::Partial, ".")? {
            let name = String::from_utf8_lossy(&name).into_owned();
            let size_bytes = directory
                .stat(Place::Partial, &name)
                .and_then(|stat| u64::try_from(stat.st_size).ok());
            let (Ok(id), Some(size_bytes)) = (name.parse::<ObjectId>(), size_bytes) else {
                directory.remove(Place::Partial, &name)?;
                continue;
            };
            if open_partial(directory, id, size_bytes)?.is_none() {
                directory.remove(Place::Partial, &name)?;
                continue;
            }
            let promise = self.ledger().count_partial(id, size_bytes);
            let held = Held {
                promise,
                size_bytes,
                open: Weak::new(),
                busy: false,
            };
            self.partials().held.lock().insert(id, held);
            counted.push((id, size_bytes));
        }
        Ok(counted)
    }

    /// Opens a partial object that is here, or one that came whole through a crash of the machine.
    pub(crate) fn existing_partial(self: &Arc<Self>, id: ObjectId, size_bytes: u64) -> Option<Arc<Partial>> {
        let mut held = self.partials().held.lock();
        if let Some(open) = held.get(&id).and_then(|held| held.open.upgrade()) {
            return (open.size_bytes == size_bytes).then_some(open);
        }
        if let Entry::Vacant(vacant) = held.entry(id) {
            let promise = self.reopen_unverified(id, size_bytes)?;
            vacant.insert(Held {
                promise,
                size_bytes,
                open: Weak::new(),
                busy: false,
            });
        }
        match self.open_files(id, size_bytes) {
            Ok(Some(partial)) => {
                let partial = Arc::new(partial);
                if let Some(held) = held.get_mut(&id) {
                    held.open = Arc::downgrade(&partial);
                }
                Some(partial)
            }
            Ok(None) => {
                let directory = self.directory();
                directory
                    .remove(Place::Partial, &name_in(Place::Partial, id))
                    .ok();
                directory.remove(Place::Seals, &name_in(Place::Seals, id)).ok();
                held.remove(&id);
                None
            }
            Err(error) => {
                drop(held);
                self.failed("open a partial object", &error);
                None
            }
        }
    }

    /// A large object that came through a crash becomes a partial one, of which no block was verified yet.
    fn reopen_unverified(&self, id: ObjectId, size_bytes: u64) -> Option<Promise> {
        if !self.is_any_unverified() || !self.ledger().costs().seal_is_file(size_bytes) {
            return None;
        }
        let directory = self.directory();
        let (from, to) = (name_in(Place::Unverified, id), name_in(Place::Partial, id));
        let found_bytes = directory.stat(Place::Unverified, &from).map(|stat| stat.st_size);
        if found_bytes != i64::try_from(size_bytes).ok() {
            return None;
        }
        let _changing = self.ledger().changing(shard_of(id));
        match directory.rename((Place::Unverified, &from), (Place::Partial, &to)) {
            Ok(()) => Some(self.ledger().reopen(id, size_bytes)),
            Err(_gone) => None,
        }
    }

    /// Makes a partial object without blocks.
    pub(crate) fn new_partial(
        self: &Arc<Self>,
        promise: Promise,
        id: ObjectId,
        size_bytes: u64,
    ) -> Result<Arc<Partial>, NoRoom> {
        let mut held = self.partials().held.lock();
        if held.contains_key(&id) {
            drop(held);
            return self.existing_partial(id, size_bytes).ok_or(NoRoom::Full);
        }
        held.insert(
            id,
            Held {
                promise,
                size_bytes,
                open: Weak::new(),
                busy: true,
            },
        );
        drop(held);
        let (partial, seals) = (name_in(Place::Partial, id), name_in(Place::Seals, id));
        let made = self.writing("make a partial object", |directory| {
            directory.remove(Place::Partial, &partial)?;
            directory.remove(Place::Seals, &seals)?;
            // The map first: data without a map are removed at the next start, a map without data likewise.
            seal::begin_file(&directory.create(Place::Seals, &seals)?, size_bytes)?;
            allocate(&directory.create(Place::Partial, &partial)?, size_bytes)
        });
        let opened = made.and_then(|()| {
            self.open_files(id, size_bytes)
                .inspect_err(|error| self.failed("open a partial object", error))
                .ok()
                .flatten()
                .ok_or(NoRoom::Failed)
        });
        let mut held = self.partials().held.lock();
        match opened {
            Ok(partial) => {
                let partial = Arc::new(partial);
                if let Some(held) = held.get_mut(&id) {
                    held.open = Arc::downgrade(&partial);
                    held.busy = false;
                }
                drop(held);
                self.order_insert(id, self.ledger().costs().partial(size_bytes));
                Ok(partial)
            }
            Err(no_room) => {
                let directory = self.directory();
                directory.remove(Place::Partial, &partial).ok();
                directory.remove(Place::Seals, &seals).ok();
                held.remove(&id);
                Err(no_room)
            }
        }
    }

    fn open_files(self: &Arc<Self>, id: ObjectId, size_bytes: u64) -> io::Result<Option<Partial>> {
        let directory = self.directory();
        let Some((writer, map_file)) = open_partial(&directory, id, size_bytes)? else {
            return Ok(None);
        };
        let Some(reader) = directory.open(Place::Partial, &name_in(Place::Partial, id))? else {
            return Ok(None);
        };
        let Some(entries) = seal::read_file(&map_file, size_bytes)? else {
            return Ok(None);
        };
        let states: Vec<_> = entries
            .into_iter()
            .map(|entry| match entry.epoch {
                None => Block::Missing,
                Some(epoch) if epoch == self.epoch() => Block::Here(entry.crc),
                Some(_) => Block::Unchecked(entry.crc),
            })
            .collect();
        let here = states
            .iter()
            .filter(|state| matches!(state, Block::Here(_)))
            .count();
        Ok(Some(Partial {
            id,
            size_bytes,
            tier: Arc::clone(self),
            blocks: Mutex::new(Blocks {
                states,
                here,
                writer: Some(Arc::new(writer)),
            }),
            reader: shared(reader),
            map_file: Some(map_file),
            map: OnceLock::new(),
            complete: OnceLock::new(),
            publishing: Mutex::new(()),
            double: Mutex::new(None),
        }))
    }

    /// A complete object in the shape of a partial one that misses nothing.
    pub(crate) fn complete_partial(
        self: &Arc<Self>,
        id: ObjectId,
        size_bytes: u64,
        file: File,
    ) -> Arc<Partial> {
        let reader = shared(file);
        Arc::new(Partial {
            id,
            size_bytes,
            tier: Arc::clone(self),
            blocks: Mutex::new(Blocks {
                states: Vec::new(),
                here: 0,
                writer: None,
            }),
            reader: Arc::clone(&reader),
            map_file: None,
            map: OnceLock::new(),
            complete: OnceLock::from(reader),
            publishing: Mutex::new(()),
            double: Mutex::new(None),
        })
    }
}

impl Partial {
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
    pub async fn write(self: &Arc<Self>, block: BlockIndex, content: Vec<Bytes>) -> Result<Progress, NoRoom> {
        let this = Arc::clone(self);
        match tokio::task::spawn_blocking(move || this.write_block(block, &content)).await {
            Ok(progress) => progress,
            Err(_stopping) => Err(NoRoom::Failed),
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

    fn write_block(self: &Arc<Self>, block: BlockIndex, content: &[Bytes]) -> Result<Progress, NoRoom> {
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
            return Err(NoRoom::Failed);
        }
        let writer = {
            let blocks = self.blocks.lock();
            match blocks.states.get(position) {
                // A map of it may be out: it must not be written again.
                Some(Block::Here(_)) => None,
                _ => blocks.writer.clone(),
            }
        };
        let Some(writer) = writer else {
            return Ok(self.complete().map_or(Progress::Incomplete, Progress::Complete));
        };
        let crc = seal::of_block(content);
        let written = write_at(&writer, offset, content).and_then(|()| self.note(block, crc));
        drop(writer);
        if let Err(error) = written {
            self.tier.failed("keep a block", &error);
            return Err(NoRoom::Failed);
        }
        self.landed(position, crc);
        self.publish_if_whole()
    }

    fn note(&self, block: BlockIndex, crc: BlockCrc) -> io::Result<()> {
        match &self.map_file {
            Some(map_file) => seal::write_entry(map_file, block, crc, self.tier.epoch()),
            None => Ok(()),
        }
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
        let mut buffer = Vec::new();
        for position in wanted {
            let state = self.blocks.lock().states.get(position).copied();
            let (Some(Block::Unchecked(crc)), Ok(index)) = (state, u32::try_from(position)) else {
                continue;
            };
            let block = BlockIndex(index);
            match block_is_right(&self.reader, self.size_bytes, u64::from(index), crc, &mut buffer) {
                Ok(true) => match self.note(block, crc) {
                    Ok(()) => self.landed(position, crc),
                    Err(error) => self.tier.failed("note a block", &error),
                },
                Ok(false) => {
                    warn!(id = %self.id, block = index, "a block did not come through the crash whole, it will be fetched again");
                    self.tier
                        .counters()
                        .corrupt
                        .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    self.lost(position);
                    if let Some(Err(error)) =
                        self.map_file.as_ref().map(|file| seal::erase_entry(file, block))
                    {
                        self.tier.failed("note a block", &error);
                    }
                }
                Err(error) => {
                    self.tier.failed("read a block", &error);
                    self.lost(position);
                }
            }
        }
        // What fails here is tried again with the next block.
        self.publish_if_whole().ok();
    }

    fn lost(&self, position: usize) {
        if let Some(state @ Block::Unchecked(_)) = self.blocks.lock().states.get_mut(position) {
            *state = Block::Missing;
        }
    }

    /// Gives the file its name in `objects/` when no block is missing any more.
    pub(crate) fn publish_if_whole(self: &Arc<Self>) -> Result<Progress, NoRoom> {
        let is_whole = || {
            let blocks = self.blocks.lock();
            blocks.here == blocks.states.len()
        };
        if !is_whole() {
            return Ok(Progress::Incomplete);
        }
        let _only = self.publishing.lock();
        if let Some(file) = self.complete() {
            return Ok(Progress::Complete(file));
        }
        // Writers of blocks that came twice are done, or will find no writer: none may be open when it is published.
        self.blocks.lock().writer = None;
        self.tier.publish_partial(self)?;
        let file = self.complete.get_or_init(|| Arc::clone(&self.reader));
        Ok(Progress::Complete(Arc::clone(file)))
    }
}

impl Tier {
    fn publish_partial(&self, partial: &Partial) -> Result<(), NoRoom> {
        let (id, size_bytes) = (partial.id, partial.size_bytes);
        let seal_is_file = self.ledger().costs().seal_is_file(size_bytes);
        if !seal_is_file {
            let blocks = partial.blocks.lock();
            let crcs: Vec<_> = blocks
                .states
                .iter()
                .filter_map(|state| match state {
                    Block::Here(crc) => Some(*crc),
                    Block::Missing | Block::Unchecked(_) => None,
                })
                .collect();
            drop(blocks);
            let value = seal::to_xattr(&crcs);
            let set = rustix::fs::fsetxattr(
                &*partial.reader,
                seal::SEAL_XATTR,
                &value,
                rustix::fs::XattrFlags::empty(),
            );
            if let Err(error) = set {
                self.failed("seal an object", &error.into());
                return Err(NoRoom::Failed);
            }
        }
        let changing = self.ledger().changing(shard_of(id));
        let (from, to) = (name_in(Place::Partial, id), name_in(Place::Objects, id));
        let is_new = self.writing("publish an object", |directory| {
            directory.rename_new((Place::Partial, &from), (Place::Objects, &to))
        });
        let directory = self.directory();
        let Ok(is_new) = is_new else {
            return Err(NoRoom::Failed);
        };
        if !is_new {
            directory.remove(Place::Partial, &from).ok();
        }
        if !seal_is_file {
            directory.remove(Place::Seals, &name_in(Place::Seals, id)).ok();
        }
        let held = self.partials().held.lock().remove(&id);
        match held {
            Some(held) if is_new => held.promise.publish(size_bytes),
            Some(held) => *partial.double.lock() = Some(held.promise),
            None => {}
        }
        drop(changing);
        self.order_insert(id, self.ledger().costs().object(size_bytes));
        Ok(())
    }
}

/// Gives a new file all its blocks now, so that later writes into it cannot fail for space.
fn allocate(file: &File, size_bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, size_bytes) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => file.set_len(size_bytes),
        Err(error) => Err(error.into()),
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
