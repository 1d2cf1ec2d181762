//! Objects that are read block by block: large ones, and those that there is no room for.
//!
//! A read that misses starts requests for the runs of missing blocks that it covers, and for what is to be fetched
//! ahead of it; then it waits for its own blocks only, each as it arrives. A block is fetched by one run at a
//! time. Runs belong to nobody who waits: a reader may go, the blocks still come and stay.
//!
//! Memory: a run takes all its bytes from the budget before its request is sent, and gives each block's back when
//! that block is on disk. Read-ahead takes what is free or is left out; so it shrinks first, and what a reader
//! joins is never itself waiting for memory behind other readers.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};
use millpond_core::ObjectId;
use millpond_core::{Data, ObjectRef, ReadError};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug};

use super::fetch_run::group_into_runs;
use super::object_state::{BlockDestination, FetchOwner, HeldBlock, ObjectState};
use super::small_object::{FetchContext, FetchOutcome, SmallObjectFetcher};
use super::uses::ObjectPin;
use crate::fetch::{Bandwidth, FetchedBlock, FlightLost, MemoryPermit, Priority, SingleFlight};
use crate::store::{BLOCK_BYTES, BlockIndex, Progress, ReservePolicy};

/// Blocks of one run that wait to be written: the next one arrives while one is written.
const QUEUED_BLOCKS: usize = 2;

/// A block that came may be gone again before its reader looks (evicted, found bad). More often than this it is
/// an error.
const MAX_ATTEMPTS: u32 = 4;

/// At most so many objects are remembered that nobody reads any more, before they are swept out of the table.
const SWEEP_EVERY: usize = 1_024;

/// Reads objects block by block.
#[derive(Debug)]
pub(super) struct BlockReader {
    fetching: Arc<FetchContext>,
    small: Arc<SmallObjectFetcher>,
    small_object_bytes: u64,
    opening: SingleFlight<ObjectId, Result<Option<Arc<ObjectState>>, ReadError>>,
    actives: Mutex<HashMap<ObjectId, Weak<ObjectState>>>,
    tasks: TaskTracker,
}

/// One block's part of an answer.
enum Part {
    OnDisk,
    InMemory(Bytes),
}

impl BlockReader {
    pub(super) fn new(
        fetching: Arc<FetchContext>,
        small: Arc<SmallObjectFetcher>,
        small_object_bytes: u64,
        tasks: TaskTracker,
    ) -> Arc<Self> {
        let opening = SingleFlight::new(tasks.clone());
        Arc::new(Self {
            fetching,
            small,
            small_object_bytes,
            opening,
            actives: Mutex::default(),
            tasks,
        })
    }

    /// Opens an object for reading; a small one is fetched whole first, if there is room for it.
    ///
    /// # Cancel safety
    /// Safe: others who open the object at the same time are not disturbed.
    pub(super) async fn open(self: &Arc<Self>, object: ObjectRef) -> Result<Arc<ObjectState>, ReadError> {
        loop {
            // A load that was opening it may have found nothing to spare, where a reader finds room.
            if let Some(active) = self.join(object, ReservePolicy::MayEvict).await? {
                return Ok(active);
            }
        }
    }

    /// Opens a large object for a load; nothing, where there is no room to spare for it.
    ///
    /// # Cancel safety
    /// Safe: others who open the object at the same time are not disturbed.
    pub(super) async fn open_for_load(
        self: &Arc<Self>,
        object: ObjectRef,
    ) -> Result<Option<Arc<ObjectState>>, ReadError> {
        Ok(self
            .join(object, ReservePolicy::FreeOnly)
            .await?
            .filter(|active| active.has_room()))
    }

    async fn join(
        self: &Arc<Self>,
        object: ObjectRef,
        demand: ReservePolicy,
    ) -> Result<Option<Arc<ObjectState>>, ReadError> {
        if let Some(active) = self.active(object.id) {
            return Ok(Some(active));
        }
        let large = Arc::clone(self);
        match self
            .opening
            .join(object.id, || async move { large.make(object, demand).await })
            .await
        {
            Ok(result) => result,
            Err(FlightLost) => Err(ReadError::Stopping),
        }
    }

    fn active(&self, id: ObjectId) -> Option<Arc<ObjectState>> {
        self.actives.lock().get(&id)?.upgrade()
    }

    async fn make(
        &self,
        object: ObjectRef,
        demand: ReservePolicy,
    ) -> Result<Option<Arc<ObjectState>>, ReadError> {
        if let Some(active) = self.active(object.id) {
            return Ok(Some(active));
        }
        let (found, _place) = self.fetching.catalogs.find(&object)?;
        let mut whole = None;
        if found.object.size_bytes <= self.small_object_bytes {
            whole = Some(self.small.fetch(found.clone(), Priority::Reader, demand).await?);
        }
        let store = &self.fetching.store;
        let kept = match whole {
            Some(FetchOutcome::NotStored) => BlockDestination::Transient,
            Some(FetchOutcome::NoFreeSpace) => return Ok(None),
            _ => match store.partial(object.id, object.size_bytes, demand).await {
                Ok(partial) => {
                    self.fetching
                        .uses
                        .hold(object.id, ObjectPin::Partial(Arc::clone(&partial)));
                    BlockDestination::OnDisk(partial)
                }
                Err(_) if demand == ReservePolicy::FreeOnly => return Ok(None),
                Err(error) => {
                    debug!(id = %object.id, %error, "serving an object through");
                    BlockDestination::Transient
                }
            },
        };
        let fetched = if whole == Some(FetchOutcome::Fetched) {
            found.object.size_bytes
        } else {
            0
        };
        let active = Arc::new(ObjectState::new(found, kept, fetched));
        let mut actives = self.actives.lock();
        if actives.len() % SWEEP_EVERY == SWEEP_EVERY - 1 {
            actives.retain(|_, active| active.strong_count() > 0);
        }
        actives.insert(object.id, Arc::downgrade(&active));
        Ok(Some(active))
    }

    /// How much may be fetched ahead of a reader of this object now.
    pub(super) fn read_ahead_limit(&self, active: &ObjectState) -> u64 {
        let budget = &self.fetching.budget;
        let free = (budget.capacity_bytes() / 4 * 3).saturating_sub(budget.used_bytes());
        match active.kept {
            BlockDestination::OnDisk(_) => free / 2,
            // Read ahead of too many readers, blocks would leave before they are read.
            BlockDestination::Transient => (free / 2).min(8 * BLOCK_BYTES),
        }
    }

    /// Reads `range`, which lies within the object, and fetches `ahead` without waiting for it.
    ///
    /// # Cancel safety
    /// Dropping the future leaves what was started to go on for the cache.
    pub(super) async fn read(
        self: &Arc<Self>,
        active: &Arc<ObjectState>,
        range: Range<u64>,
        ahead: Range<u64>,
    ) -> Result<Data, ReadError> {
        let here = map(active, &range);
        if here.is_none() || !ahead.is_empty() {
            self.start(active, range.start..ahead.end.max(range.end), &range)
                .await;
        }
        if let Some(mapping) = here {
            let served = active.served(range.end - range.start);
            return Ok(Data::Mapped(mapping, served));
        }
        let mut parts = Vec::new();
        for block in blocks_of(&range) {
            let part = intersection(&active.bytes_of(&(block..block + 1)), &range);
            parts.push((part.clone(), self.block(active, block, part).await?));
        }
        let served = active.served(range.end - range.start);
        if parts.iter().all(|(_, part)| matches!(part, Part::OnDisk))
            && let Some(mapping) = map(active, &range)
        {
            return Ok(Data::Mapped(mapping, served));
        }
        if parts.len() == 1
            && let Some((_, Part::InMemory(bytes))) = parts.pop()
        {
            return Ok(Data::Bytes(bytes, served));
        }
        let mut answer = BytesMut::new();
        for (range, part) in parts {
            match part {
                Part::InMemory(bytes) => answer.extend_from_slice(&bytes),
                Part::OnDisk => match map(active, &range) {
                    Some(mapping) => answer.extend_from_slice(&mapping),
                    None => return Err(vanished(active)),
                },
            }
        }
        Ok(Data::Bytes(answer.freeze(), served))
    }

    /// Fetches all that is missing of `range`, as many runs at once as `at_once` says. Says how many bytes came.
    pub(super) async fn load(
        self: &Arc<Self>,
        active: &Arc<ObjectState>,
        at_once: usize,
        bandwidth: Option<&Bandwidth>,
    ) -> Result<u64, ReadError> {
        let mut loaded = 0;
        for group in group_into_runs(blocks_of(&(0..active.object.size_bytes))).chunks(at_once.max(1)) {
            let mut waiting = Vec::new();
            for blocks in group {
                let bytes = active.bytes_of(blocks);
                let missing = self.missing(active, &bytes).await;
                let Some(last) = missing.last().copied() else {
                    continue;
                };
                if let Some(bandwidth) = bandwidth {
                    bandwidth.take(missing.len() as u64 * BLOCK_BYTES).await;
                }
                self.start(active, bytes.clone(), &bytes).await;
                loaded += missing.len() as u64 * BLOCK_BYTES;
                waiting.push(last);
            }
            for block in waiting {
                let part = active.bytes_of(&(block..block + 1));
                self.block(active, block, part).await?;
            }
        }
        Ok(loaded.min(active.object.size_bytes))
    }

    /// Waits for one block, fetching it if it neither is here nor on its way.
    async fn block(
        self: &Arc<Self>,
        active: &Arc<ObjectState>,
        block: u64,
        part: Range<u64>,
    ) -> Result<Part, ReadError> {
        for _attempt in 0..MAX_ATTEMPTS {
            // The run first: a block that lands in between is found in the file.
            let run = active.run_of(block);
            if let Some(found) = self.find(active, block, &part) {
                return Ok(found);
            }
            let Some(run) = run else {
                let whole = active.bytes_of(&(block..block + 1));
                self.start(active, whole.clone(), &whole).await;
                continue;
            };
            match run.wait(block).await {
                Ok(()) => {
                    if let Some(held) = run.held(block) {
                        return slice(active, block, &held, &part);
                    }
                }
                // Read-ahead that failed used up its own deadline, not this reader's.
                Err(ReadError::Unavailable { .. } | ReadError::Stopping) if !run.awaited => {}
                Err(error) => return Err(error),
            }
        }
        Err(vanished(active))
    }

    fn find(&self, active: &ObjectState, block: u64, part: &Range<u64>) -> Option<Part> {
        if map(active, part).is_some() {
            return Some(Part::OnDisk);
        }
        let bytes = self.fetching.transient.get(active.object.id, block)?;
        slice(active, block, &bytes, part).ok()
    }

    /// The blocks of `range` that are nowhere here.
    async fn missing(&self, active: &ObjectState, range: &Range<u64>) -> Vec<u64> {
        let blocks: Vec<u64> = match &active.kept {
            BlockDestination::OnDisk(partial) => partial
                .missing(range.clone())
                .await
                .into_iter()
                .map(|block| u64::from(block.0))
                .collect(),
            BlockDestination::Transient => blocks_of(range).collect(),
        };
        let transient = &self.fetching.transient;
        blocks
            .into_iter()
            .filter(|block| transient.get(active.object.id, *block).is_none())
            .collect()
    }

    /// Starts requests for what is missing of `range`; those that touch `wanted` wait for memory, others do not.
    async fn start(self: &Arc<Self>, active: &Arc<ObjectState>, range: Range<u64>, wanted: &Range<u64>) {
        let missing = self.missing(active, &range).await;
        if missing.is_empty() {
            return;
        }
        let wanted = blocks_of(wanted);
        let (mut now, mut later): (Vec<_>, Vec<_>) = group_into_runs(missing)
            .into_iter()
            .partition(|run: &Range<u64>| run.start < wanted.end && wanted.start < run.end);
        if self.fetching.budget.waiting() > 0 {
            // Memory is short: only what is waited for.
            later.clear();
            now = now
                .iter()
                .map(|run| run.start.max(wanted.start)..run.end.min(wanted.end))
                .collect();
        }
        let here = |block: u64| {
            self.find(active, block, &active.bytes_of(&(block..block + 1)))
                .is_some()
        };
        let flat: Vec<u64> = now.into_iter().flatten().collect();
        for claim in active.claim(&flat, here, group_into_runs, |_| true, true) {
            self.spawn(claim, None);
        }
        let flat: Vec<u64> = later.into_iter().flatten().collect();
        let mut memories = Vec::new();
        let budget = &self.fetching.budget;
        let admit = |blocks: &Range<u64>| {
            let bytes = active.bytes_of(blocks);
            let memory = budget.try_acquire(bytes.end - bytes.start, Priority::Background);
            memory.map(|memory| memories.push(memory)).is_some()
        };
        let claims = active.claim(&flat, here, group_into_runs, admit, false);
        for (claim, memory) in claims.into_iter().zip(memories) {
            self.spawn(claim, Some(memory));
        }
    }

    fn spawn(self: &Arc<Self>, claim: FetchOwner, memory: Option<MemoryPermit>) {
        let large = Arc::clone(self);
        self.tasks
            .spawn(async move { large.run(claim, memory).await }.in_current_span());
    }

    async fn run(&self, claim: FetchOwner, memory: Option<MemoryPermit>) {
        let active = Arc::clone(&claim.active);
        let bytes = active.bytes_of(&claim.run.blocks);
        let urgency = if claim.run.awaited {
            Priority::Reader
        } else {
            Priority::Background
        };
        let mut memory = match memory {
            Some(memory) => memory,
            None => {
                self.fetching
                    .budget
                    .acquire(bytes.end - bytes.start, urgency)
                    .await
            }
        };
        let (send, mut arriving) = mpsc::channel(QUEUED_BLOCKS);
        let request = FetchContext::request(&active.object, bytes, urgency);
        let fetch = async {
            let mount = self.fetching.mount(active.object.id, &active.source)?;
            let fetched = mount.origin.fetch_blocks(request, BLOCK_BYTES, send).await;
            fetched.map_err(|error| self.fetching.read_error(active.object.id, &error))
        };
        let keep = async {
            while let Some(block) = arriving.recv().await {
                self.keep(&claim, block, &mut memory).await;
            }
        };
        let (fetched, ()) = tokio::join!(fetch, keep);
        claim.finish(fetched);
    }

    /// Puts a block that came where its readers find it.
    async fn keep(&self, claim: &FetchOwner, block: FetchedBlock, memory: &mut MemoryPermit) {
        let FetchedBlock { index, content } = block;
        let length = content.iter().map(|part| part.len() as u64).sum();
        let held = memory.split(length);
        claim.active.fetched(length);
        let kept = match (&claim.active.kept, u32::try_from(index)) {
            (BlockDestination::OnDisk(partial), Ok(number)) => {
                partial.write(BlockIndex(number), content.clone()).await
            }
            (BlockDestination::Transient, _) | (_, Err(_)) => Err(crate::store::NotStored::Full),
        };
        match kept {
            Ok(Progress::Incomplete | Progress::Complete(_)) => drop(held),
            Err(_no_room) => {
                let content = contiguous(content);
                let memory = Arc::new(held);
                self.fetching.transient.insert(
                    claim.active.object.id,
                    index,
                    content.clone(),
                    Arc::clone(&memory),
                );
                claim.run.hold(
                    index,
                    HeldBlock {
                        content,
                        _memory: memory,
                    },
                );
            }
        }
        claim.run.arrived(index);
    }
}

/// One buffer for a block that stays in memory: it is asked for in pieces, many times.
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

fn map(active: &ObjectState, range: &Range<u64>) -> Option<millpond_core::Mapping> {
    match &active.kept {
        BlockDestination::OnDisk(partial) => partial.map(range.clone()),
        BlockDestination::Transient => None,
    }
}

fn slice(active: &ObjectState, block: u64, bytes: &Bytes, part: &Range<u64>) -> Result<Part, ReadError> {
    let start = block.saturating_mul(BLOCK_BYTES);
    let within = |at: u64| at.checked_sub(start).and_then(|at| usize::try_from(at).ok());
    match (within(part.start), within(part.end)) {
        (Some(start), Some(end)) if start <= end && end <= bytes.len() => {
            Ok(Part::InMemory(bytes.slice(start..end)))
        }
        _ => Err(vanished(active)),
    }
}

fn vanished(active: &ObjectState) -> ReadError {
    let reason = "its blocks were evicted or damaged again and again before they could be read".to_owned();
    ReadError::Unavailable {
        id: active.object.id,
        reason,
    }
}

fn blocks_of(range: &Range<u64>) -> Range<u64> {
    range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES)
}

fn intersection(a: &Range<u64>, b: &Range<u64>) -> Range<u64> {
    a.start.max(b.start)..a.end.min(b.end)
}
