//! Reading objects block by block: large ones, and those that the store has no space for.
//!
//! A read that misses starts requests for the runs of missing blocks that it covers, and for the readahead behind
//! them; then it waits for its own blocks only, each as it arrives. A block is fetched by one run at a time. No
//! waiter owns a run: a read may be dropped, the blocks are still fetched and stored.
//!
//! Memory: a run reserves all its bytes from the budget before its request is sent, and releases each block's when
//! that block is on disk. Readahead takes free bytes or is left out: so it shrinks first, and a run that a reader
//! joins never waits for memory behind other readers.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};
use millpond_core::{Data, Mapping, ObjectId, ObjectRef, ReadError};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug};

use super::context::FetchContext;
use super::fetch_run::{BlockInMemory, group_into_runs};
use super::object_state::{BlockDestination, FetchOwner, ObjectState};
use super::open_files::ObjectPin;
use super::small_object::{FetchOutcome, SmallObjectFetcher};
use crate::fetch::{Bandwidth, FetchedBlock, FlightLost, MemoryPermit, Priority, SingleFlight};
use crate::store::{BLOCK_BYTES, BlockIndex, NotStored, Progress, ReservePolicy};

/// Blocks of one run that wait to be written: the next one arrives while one is written.
const QUEUED_BLOCKS: usize = 2;

/// A block that arrived may be lost before its reader finds it (evicted, found corrupt). After so many attempts the
/// read fails.
const MAX_ATTEMPTS: u32 = 4;

/// The table of objects is swept of unread ones whenever it has grown by this many.
const SWEEP_EVERY: usize = 1_024;

/// Reads objects block by block.
#[derive(Debug)]
pub(in crate::dataset) struct BlockReader {
    context: Arc<FetchContext>,
    small_objects: Arc<SmallObjectFetcher>,
    small_object_bytes: u64,
    opens: SingleFlight<ObjectId, Result<Option<Arc<ObjectState>>, ReadError>>,
    states: Mutex<HashMap<ObjectId, Weak<ObjectState>>>,
    tasks: TaskTracker,
}

/// The part of a response that comes from one block.
enum BlockPart {
    OnDisk,
    InMemory(Bytes),
}

impl BlockReader {
    pub(in crate::dataset) fn new(
        context: Arc<FetchContext>,
        small_objects: Arc<SmallObjectFetcher>,
        small_object_bytes: u64,
        tasks: TaskTracker,
    ) -> Arc<Self> {
        let opens = SingleFlight::new(tasks.clone());
        Arc::new(Self {
            context,
            small_objects,
            small_object_bytes,
            opens,
            states: Mutex::default(),
            tasks,
        })
    }

    /// Opens an object for reading; a small one is fetched completely first, if the store has space for it.
    ///
    /// # Cancel safety
    /// Safe: concurrent opens of the object are not affected.
    pub(in crate::dataset) async fn open(
        self: &Arc<Self>,
        object: ObjectRef,
    ) -> Result<Arc<ObjectState>, ReadError> {
        loop {
            // A load that was opening it may have found no free space, where a reader may evict.
            if let Some(state) = self.join(object, ReservePolicy::MayEvict).await? {
                return Ok(state);
            }
        }
    }

    /// Opens a large object for a load; `None` if there is no free space for it.
    ///
    /// # Cancel safety
    /// Safe: concurrent opens of the object are not affected.
    pub(in crate::dataset) async fn open_for_load(
        self: &Arc<Self>,
        object: ObjectRef,
    ) -> Result<Option<Arc<ObjectState>>, ReadError> {
        Ok(self
            .join(object, ReservePolicy::FreeOnly)
            .await?
            .filter(|state| state.is_on_disk()))
    }

    async fn join(
        self: &Arc<Self>,
        object: ObjectRef,
        policy: ReservePolicy,
    ) -> Result<Option<Arc<ObjectState>>, ReadError> {
        if let Some(state) = self.state(object.id) {
            return Ok(Some(state));
        }
        let reader = Arc::clone(self);
        match self
            .opens
            .join(object.id, || async move { reader.create(object, policy).await })
            .await
        {
            Ok(result) => result,
            Err(FlightLost) => Err(ReadError::Stopping),
        }
    }

    fn state(&self, id: ObjectId) -> Option<Arc<ObjectState>> {
        self.states.lock().get(&id)?.upgrade()
    }

    async fn create(
        &self,
        object: ObjectRef,
        policy: ReservePolicy,
    ) -> Result<Option<Arc<ObjectState>>, ReadError> {
        if let Some(state) = self.state(object.id) {
            return Ok(Some(state));
        }
        let (location, _place) = self.context.catalogs.find(&object)?;
        let size_bytes = location.object.size_bytes;
        let mut outcome = None;
        if size_bytes <= self.small_object_bytes {
            let fetch = self
                .small_objects
                .fetch(location.clone(), Priority::Reader, policy);
            outcome = Some(fetch.await?);
        }
        let store = &self.context.store;
        let destination = match outcome {
            Some(FetchOutcome::NotStored) => BlockDestination::Transient,
            Some(FetchOutcome::NoFreeSpace) => return Ok(None),
            _ => match store.partial(object.id, object.size_bytes, policy).await {
                Ok(partial) => {
                    let pin = ObjectPin::Partial(Arc::clone(&partial));
                    self.context.open_files.pin(object.id, pin);
                    BlockDestination::OnDisk(partial)
                }
                Err(_) if policy == ReservePolicy::FreeOnly => return Ok(None),
                Err(error) => {
                    debug!(id = %object.id, %error, "an object bypasses the cache");
                    BlockDestination::Transient
                }
            },
        };
        let unread_bytes = match outcome {
            Some(FetchOutcome::Fetched) => size_bytes,
            _ => 0,
        };
        let state = Arc::new(ObjectState::new(location, destination, unread_bytes));
        let mut states = self.states.lock();
        if states.len() % SWEEP_EVERY == SWEEP_EVERY - 1 {
            states.retain(|_, state| state.strong_count() > 0);
        }
        states.insert(object.id, Arc::downgrade(&state));
        Ok(Some(state))
    }

    /// Returns the largest readahead window that memory allows a reader of this object now.
    pub(in crate::dataset) fn readahead_limit(&self, state: &ObjectState) -> u64 {
        let budget = &self.context.budget;
        let free = (budget.capacity_bytes() / 4 * 3).saturating_sub(budget.used_bytes());
        match state.destination {
            BlockDestination::OnDisk(_) => free / 2,
            // With more readahead for many readers, blocks would be dropped before they are read.
            BlockDestination::Transient => (free / 2).min(8 * BLOCK_BYTES),
        }
    }

    /// Reads `range`, which lies within the object, and starts to fetch `ahead` without waiting for it.
    ///
    /// # Cancel safety
    /// Dropping the future does not end the fetches: they complete for the cache.
    pub(in crate::dataset) async fn read(
        self: &Arc<Self>,
        state: &Arc<ObjectState>,
        range: Range<u64>,
        ahead: Range<u64>,
    ) -> Result<Data, ReadError> {
        let mapping = map(state, &range);
        if mapping.is_none() || !ahead.is_empty() {
            self.start(state, range.start..ahead.end.max(range.end), &range)
                .await;
        }
        if let Some(mapping) = mapping {
            let served = state.count_read(range.end - range.start);
            return Ok(Data::Mapped(mapping, served));
        }
        let mut parts = Vec::new();
        for block in blocks_of(&range) {
            let part = intersection(&state.bytes_of(&(block..block + 1)), &range);
            parts.push((part.clone(), self.block(state, block, part).await?));
        }
        let served = state.count_read(range.end - range.start);
        if parts.iter().all(|(_, part)| matches!(part, BlockPart::OnDisk))
            && let Some(mapping) = map(state, &range)
        {
            return Ok(Data::Mapped(mapping, served));
        }
        if parts.len() == 1
            && let Some((_, BlockPart::InMemory(bytes))) = parts.pop()
        {
            return Ok(Data::Bytes(bytes, served));
        }
        let mut response = BytesMut::new();
        for (range, part) in parts {
            match part {
                BlockPart::InMemory(bytes) => response.extend_from_slice(&bytes),
                BlockPart::OnDisk => match map(state, &range) {
                    Some(mapping) => response.extend_from_slice(&mapping),
                    None => return Err(lost(state)),
                },
            }
        }
        Ok(Data::Bytes(response.freeze(), served))
    }

    /// Fetches all missing blocks of an object in at most `max_runs` concurrent runs. Returns the bytes fetched.
    pub(in crate::dataset) async fn load(
        self: &Arc<Self>,
        state: &Arc<ObjectState>,
        max_runs: usize,
        bandwidth: Option<&Bandwidth>,
    ) -> Result<u64, ReadError> {
        let mut loaded = 0;
        for group in group_into_runs(blocks_of(&(0..state.object.size_bytes))).chunks(max_runs.max(1)) {
            let mut waiting = Vec::new();
            for blocks in group {
                let bytes = state.bytes_of(blocks);
                let missing = self.missing(state, &bytes).await;
                let Some(last) = missing.last().copied() else {
                    continue;
                };
                if let Some(bandwidth) = bandwidth {
                    bandwidth.take(missing.len() as u64 * BLOCK_BYTES).await;
                }
                self.start(state, bytes.clone(), &bytes).await;
                loaded += missing.len() as u64 * BLOCK_BYTES;
                waiting.push(last);
            }
            for block in waiting {
                let part = state.bytes_of(&(block..block + 1));
                self.block(state, block, part).await?;
            }
        }
        Ok(loaded.min(state.object.size_bytes))
    }

    /// Waits for one block, fetching it if it is neither present nor in flight.
    async fn block(
        self: &Arc<Self>,
        state: &Arc<ObjectState>,
        block: u64,
        part: Range<u64>,
    ) -> Result<BlockPart, ReadError> {
        for _attempt in 0..MAX_ATTEMPTS {
            // The run first: a block that arrives in between is found in the file.
            let run = state.run_of(block);
            if let Some(found) = self.find(state, block, &part) {
                return Ok(found);
            }
            let Some(run) = run else {
                let bytes = state.bytes_of(&(block..block + 1));
                self.start(state, bytes.clone(), &bytes).await;
                continue;
            };
            match run.wait(block).await {
                Ok(()) => {
                    if let Some(bytes) = run.block_in_memory(block) {
                        return slice(state, block, &bytes, &part);
                    }
                }
                // Readahead that failed spent its own deadline, not this reader's.
                Err(ReadError::Unavailable { .. } | ReadError::Stopping) if !run.awaited => {}
                Err(error) => return Err(error),
            }
        }
        Err(lost(state))
    }

    fn find(&self, state: &ObjectState, block: u64, part: &Range<u64>) -> Option<BlockPart> {
        if map(state, part).is_some() {
            return Some(BlockPart::OnDisk);
        }
        let bytes = self.context.transient.get(state.object.id, block)?;
        slice(state, block, &bytes, part).ok()
    }

    /// Returns the blocks of `range` that are neither on disk nor in memory.
    async fn missing(&self, state: &ObjectState, range: &Range<u64>) -> Vec<u64> {
        let blocks: Vec<u64> = match &state.destination {
            BlockDestination::OnDisk(partial) => partial
                .missing(range.clone())
                .await
                .into_iter()
                .map(|block| u64::from(block.0))
                .collect(),
            BlockDestination::Transient => blocks_of(range).collect(),
        };
        let transient = &self.context.transient;
        blocks
            .into_iter()
            .filter(|block| transient.get(state.object.id, *block).is_none())
            .collect()
    }

    /// Starts runs for the missing blocks of `range`; those that touch `wanted` wait for memory, the others do not.
    async fn start(self: &Arc<Self>, state: &Arc<ObjectState>, range: Range<u64>, wanted: &Range<u64>) {
        let missing = self.missing(state, &range).await;
        if missing.is_empty() {
            return;
        }
        let wanted = blocks_of(wanted);
        let (mut now, mut later): (Vec<_>, Vec<_>) = group_into_runs(missing)
            .into_iter()
            .partition(|run: &Range<u64>| run.start < wanted.end && wanted.start < run.end);
        if self.context.budget.waiting() > 0 {
            // Memory is short: only blocks that a reader waits for.
            later.clear();
            now = now
                .iter()
                .map(|run| run.start.max(wanted.start)..run.end.min(wanted.end))
                .collect();
        }
        let is_present = |block: u64| {
            self.find(state, block, &state.bytes_of(&(block..block + 1)))
                .is_some()
        };
        let blocks: Vec<u64> = now.into_iter().flatten().collect();
        for owner in state.start_runs(&blocks, is_present, group_into_runs, |_| true, true) {
            self.spawn(owner, None);
        }
        let blocks: Vec<u64> = later.into_iter().flatten().collect();
        let mut permits = Vec::new();
        let budget = &self.context.budget;
        let admit = |blocks: &Range<u64>| {
            let bytes = state.bytes_of(blocks);
            let permit = budget.try_acquire(bytes.end - bytes.start, Priority::Background);
            permit.map(|permit| permits.push(permit)).is_some()
        };
        let owners = state.start_runs(&blocks, is_present, group_into_runs, admit, false);
        for (owner, memory) in owners.into_iter().zip(permits) {
            self.spawn(owner, Some(memory));
        }
    }

    fn spawn(self: &Arc<Self>, owner: FetchOwner, memory: Option<MemoryPermit>) {
        let reader = Arc::clone(self);
        self.tasks
            .spawn(async move { reader.fetch(owner, memory).await }.in_current_span());
    }

    /// Fetches the blocks of a run.
    async fn fetch(&self, owner: FetchOwner, memory: Option<MemoryPermit>) {
        let state = Arc::clone(&owner.state);
        let bytes = state.bytes_of(&owner.run.blocks);
        let priority = if owner.run.awaited {
            Priority::Reader
        } else {
            Priority::Background
        };
        let mut memory = match memory {
            Some(memory) => memory,
            None => {
                self.context
                    .budget
                    .acquire(bytes.end - bytes.start, priority)
                    .await
            }
        };
        let (send, mut arriving) = mpsc::channel(QUEUED_BLOCKS);
        let request = FetchContext::request(&state.object, bytes, priority);
        let fetch = async {
            let mount = self.context.mount(state.object.id, &state.source)?;
            let fetched = mount.origin.fetch_blocks(request, BLOCK_BYTES, send).await;
            fetched.map_err(|error| self.context.read_error(state.object.id, &error))
        };
        let store = async {
            while let Some(block) = arriving.recv().await {
                self.store(&owner, block, &mut memory).await;
            }
        };
        let (fetched, ()) = tokio::join!(fetch, store);
        owner.finish(fetched);
    }

    /// Stores a block that arrived, on disk or in memory, and wakes its readers.
    async fn store(&self, owner: &FetchOwner, block: FetchedBlock, memory: &mut MemoryPermit) {
        let FetchedBlock { index, content } = block;
        let length = content.iter().map(|part| part.len() as u64).sum();
        let memory = memory.split(length);
        owner.state.count_fetched(length);
        let stored = match (&owner.state.destination, u32::try_from(index)) {
            (BlockDestination::OnDisk(partial), Ok(number)) => {
                partial.write(BlockIndex(number), content.clone()).await
            }
            (BlockDestination::Transient, _) | (_, Err(_)) => Err(NotStored::Full),
        };
        match stored {
            Ok(Progress::Incomplete | Progress::Complete(_)) => drop(memory),
            Err(_not_stored) => {
                let content = contiguous(content);
                let memory = Arc::new(memory);
                self.context.transient.insert(
                    owner.state.object.id,
                    index,
                    content.clone(),
                    Arc::clone(&memory),
                );
                owner.run.hold(
                    index,
                    BlockInMemory {
                        content,
                        _memory: memory,
                    },
                );
            }
        }
        owner.run.arrived(index);
    }
}

/// Returns one buffer for a block that stays in memory: it is read in pieces, many times.
fn contiguous(mut content: Vec<Bytes>) -> Bytes {
    match content.pop() {
        Some(only) if content.is_empty() => only,
        Some(last) => {
            content.push(last);
            Bytes::from(content.concat())
        }
        None => Bytes::new(),
    }
}

fn map(state: &ObjectState, range: &Range<u64>) -> Option<Mapping> {
    match &state.destination {
        BlockDestination::OnDisk(partial) => partial.map(range.clone()),
        BlockDestination::Transient => None,
    }
}

fn slice(state: &ObjectState, block: u64, bytes: &Bytes, part: &Range<u64>) -> Result<BlockPart, ReadError> {
    let start = block.saturating_mul(BLOCK_BYTES);
    let within = |at: u64| at.checked_sub(start).and_then(|at| usize::try_from(at).ok());
    match (within(part.start), within(part.end)) {
        (Some(start), Some(end)) if start <= end && end <= bytes.len() => {
            Ok(BlockPart::InMemory(bytes.slice(start..end)))
        }
        _ => Err(lost(state)),
    }
}

fn lost(state: &ObjectState) -> ReadError {
    let reason = "its blocks were evicted or corrupt before they could be read".to_owned();
    ReadError::Unavailable {
        id: state.object.id,
        reason,
    }
}

fn blocks_of(range: &Range<u64>) -> Range<u64> {
    range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES)
}

fn intersection(a: &Range<u64>, b: &Range<u64>) -> Range<u64> {
    a.start.max(b.start)..a.end.min(b.end)
}
