//! One object that is being read block by block: what of it is here, and what is on its way.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use millpond_catalog::{Object, SourceInfo};
use millpond_core::{ReadError, ServedBytes};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::sources::ObjectLocation;
use crate::fetch::MemoryPermit;
use crate::store::{BLOCK_BYTES, Partial};

/// Where the blocks of an object are kept.
#[derive(Debug)]
pub(super) enum BlockDestination {
    /// In its partial file.
    OnDisk(Arc<Partial>),
    /// Nowhere for long: there is no room for it.
    Transient,
}

/// The state that all readers of one object share.
#[derive(Debug)]
pub(super) struct ObjectState {
    pub(super) object: Object,
    pub(super) source: Arc<SourceInfo>,
    pub(super) kept: BlockDestination,
    runs: Mutex<BTreeMap<u64, Arc<FetchRun>>>,
    /// Bytes that came from the source and were not yet given to a reader.
    unread_bytes: AtomicU64,
}

impl ObjectState {
    pub(super) fn new(located: ObjectLocation, kept: BlockDestination, unread_bytes: u64) -> Self {
        let unread_bytes = AtomicU64::new(unread_bytes);
        let ObjectLocation { object, source } = located;
        Self {
            object,
            source,
            kept,
            runs: Mutex::default(),
            unread_bytes,
        }
    }

    /// Whether what comes is kept.
    pub(super) const fn has_room(&self) -> bool {
        matches!(self.kept, BlockDestination::OnDisk(_))
    }

    /// The byte range of some blocks.
    pub(super) fn bytes_of(&self, blocks: &Range<u64>) -> Range<u64> {
        let size = self.object.size_bytes;
        blocks.start.saturating_mul(BLOCK_BYTES).min(size)..blocks.end.saturating_mul(BLOCK_BYTES).min(size)
    }

    /// The run that brings a block, if it is on its way.
    pub(super) fn run_of(&self, block: u64) -> Option<Arc<FetchRun>> {
        find(&self.runs.lock(), block).cloned()
    }

    /// Takes the blocks that nobody fetches yet out of `missing` (in order), grouped by `group`, and makes them runs.
    ///
    /// `here` is asked once more for each of them: a run that was under way when `missing` was found may have
    /// brought it since. Runs leave the table after their blocks are where `here` sees them, so under the table's
    /// lock a block is in a run, or here, or truly missing.
    pub(super) fn claim(
        self: &Arc<Self>,
        missing: &[u64],
        here: impl Fn(u64) -> bool,
        group: impl FnOnce(Vec<u64>) -> Vec<Range<u64>>,
        mut admit: impl FnMut(&Range<u64>) -> bool,
        awaited: bool,
    ) -> Vec<FetchOwner> {
        let mut runs = self.runs.lock();
        let free = missing
            .iter()
            .copied()
            .filter(|block| find(&runs, *block).is_none() && !here(*block))
            .collect();
        let mut claims = Vec::new();
        for blocks in group(free) {
            if !admit(&blocks) {
                break;
            }
            let run = Arc::new(FetchRun::new(blocks, awaited));
            runs.insert(run.blocks.start, Arc::clone(&run));
            claims.push(FetchOwner {
                active: Arc::clone(self),
                run,
            });
        }
        claims
    }

    /// Counts bytes that came from the source.
    pub(super) fn fetched(&self, bytes: u64) {
        self.unread_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Says where an answer of `bytes` came from. What was fetched counts as the source's the first time it is read.
    pub(super) fn served(&self, bytes: u64) -> ServedBytes {
        let take = |unread: u64| Some(unread - unread.min(bytes));
        let unread = match self
            .unread_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
        {
            Ok(unread) | Err(unread) => unread,
        };
        let origin_bytes = unread.min(bytes);
        ServedBytes {
            local_bytes: bytes - origin_bytes,
            peer_bytes: 0,
            origin_bytes,
        }
    }
}

fn find(runs: &BTreeMap<u64, Arc<FetchRun>>, block: u64) -> Option<&Arc<FetchRun>> {
    runs.range(..=block)
        .next_back()
        .map(|(_, run)| run)
        .filter(|run| run.blocks.contains(&block))
}

/// Neighbouring blocks that one request brings.
#[derive(Debug)]
pub(super) struct FetchRun {
    pub(super) blocks: Range<u64>,
    /// Whether a reader waited for it from its start.
    pub(super) awaited: bool,
    progress: watch::Sender<RunProgress>,
    /// Blocks that could not be kept on disk, for those who wait.
    held: Mutex<BTreeMap<u64, HeldBlock>>,
}

/// A block in memory with its part of the budget.
#[derive(Clone, Debug)]
pub(super) struct HeldBlock {
    pub(super) content: Bytes,
    pub(super) _memory: Arc<MemoryPermit>,
}

#[derive(Clone, Debug)]
struct RunProgress {
    /// The first block that is not here yet.
    next: u64,
    /// How it ended.
    end: Option<Result<(), ReadError>>,
}

impl FetchRun {
    fn new(blocks: Range<u64>, awaited: bool) -> Self {
        let progress = watch::Sender::new(RunProgress {
            next: blocks.start,
            end: None,
        });
        Self {
            blocks,
            awaited,
            progress,
            held: Mutex::default(),
        }
    }

    /// Waits until a block came, or never will.
    pub(super) async fn wait(&self, block: u64) -> Result<(), ReadError> {
        let mut progress = self.progress.subscribe();
        let seen = progress
            .wait_for(|progress| progress.next > block || progress.end.is_some())
            .await;
        match seen {
            Ok(progress) if progress.next > block => Ok(()),
            Ok(progress) => progress.end.clone().unwrap_or(Err(ReadError::Stopping)),
            Err(_closed) => Err(ReadError::Stopping),
        }
    }

    /// The block, where it is held for those who wait.
    pub(super) fn held(&self, block: u64) -> Option<Bytes> {
        self.held.lock().get(&block).map(|held| held.content.clone())
    }

    pub(super) fn hold(&self, block: u64, held: HeldBlock) {
        self.held.lock().insert(block, held);
    }

    /// Says that a block is where readers find it.
    pub(super) fn arrived(&self, block: u64) {
        self.progress.send_modify(|progress| progress.next = block + 1);
    }
}

/// The duty to fetch a run. However it ends, those who wait are told.
#[derive(Debug)]
pub(super) struct FetchOwner {
    pub(super) active: Arc<ObjectState>,
    pub(super) run: Arc<FetchRun>,
}

impl FetchOwner {
    /// Ends the run.
    pub(super) fn finish(self, end: Result<(), ReadError>) {
        // Out of the table first: who is told of a failure must not find the same run there again.
        self.leave();
        self.run.progress.send_modify(|progress| progress.end = Some(end));
    }

    /// Takes this run (and not a later one of the same blocks) out of the table.
    fn leave(&self) {
        let mut runs = self.active.runs.lock();
        if runs
            .get(&self.run.blocks.start)
            .is_some_and(|run| Arc::ptr_eq(run, &self.run))
        {
            runs.remove(&self.run.blocks.start);
        }
    }
}

impl Drop for FetchOwner {
    fn drop(&mut self) {
        self.leave();
        self.run.progress.send_if_modified(|progress| {
            let lost = progress.end.is_none();
            progress.end.get_or_insert(Err(ReadError::Stopping));
            lost
        });
    }
}
