//! The state of one object that is read block by block: where its blocks are stored, and which are being fetched.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millpond_catalog::{Object, SourceInfo};
use millpond_core::{ReadError, ServedBytes};
use parking_lot::Mutex;

use super::fetch_run::FetchRun;
use crate::dataset::sources::ObjectLocation;
use crate::store::{BLOCK_BYTES, Partial};

/// Where the fetched blocks of an object are stored.
#[derive(Debug)]
pub(super) enum BlockDestination {
    /// In its partial file.
    OnDisk(Arc<Partial>),
    /// In memory, for a short time: the store has no space for it.
    Transient,
}

/// The state that all readers of one object share.
#[derive(Debug)]
pub(in crate::dataset) struct ObjectState {
    pub(super) object: Object,
    pub(super) source: Arc<SourceInfo>,
    pub(super) destination: BlockDestination,
    runs: Mutex<BTreeMap<u64, Arc<FetchRun>>>,
    /// Bytes that came from the source and were not read yet.
    unread_bytes: AtomicU64,
}

impl ObjectState {
    pub(super) fn new(location: ObjectLocation, destination: BlockDestination, unread_bytes: u64) -> Self {
        let unread_bytes = AtomicU64::new(unread_bytes);
        let ObjectLocation { object, source } = location;
        Self {
            object,
            source,
            destination,
            runs: Mutex::default(),
            unread_bytes,
        }
    }

    /// Returns whether fetched blocks are stored on disk.
    pub(super) const fn is_on_disk(&self) -> bool {
        matches!(self.destination, BlockDestination::OnDisk(_))
    }

    /// Returns the byte range of some blocks.
    pub(super) fn bytes_of(&self, blocks: &Range<u64>) -> Range<u64> {
        let size = self.object.size_bytes;
        blocks.start.saturating_mul(BLOCK_BYTES).min(size)..blocks.end.saturating_mul(BLOCK_BYTES).min(size)
    }

    /// Returns the run that fetches a block, if one is in progress.
    pub(super) fn run_of(&self, block: u64) -> Option<Arc<FetchRun>> {
        find(&self.runs.lock(), block).cloned()
    }

    /// Starts runs for the blocks of `missing` (in order) that no run fetches yet, grouped by `group`, and returns
    /// their owners.
    ///
    /// `is_present` is checked again for each of them: a run that was in progress when `missing` was computed may have
    /// brought it since. A run leaves the table after `is_present` is true for its blocks, so under the table's lock
    /// a block is in a run, or present, or truly missing.
    pub(super) fn start_runs(
        self: &Arc<Self>,
        missing: &[u64],
        is_present: impl Fn(u64) -> bool,
        group: impl FnOnce(Vec<u64>) -> Vec<Range<u64>>,
        mut admit: impl FnMut(&Range<u64>) -> bool,
        awaited: bool,
    ) -> Vec<FetchOwner> {
        let mut runs = self.runs.lock();
        let free = missing
            .iter()
            .copied()
            .filter(|block| find(&runs, *block).is_none() && !is_present(*block))
            .collect();
        let mut owners = Vec::new();
        for blocks in group(free) {
            if !admit(&blocks) {
                break;
            }
            let run = Arc::new(FetchRun::new(blocks, awaited));
            runs.insert(run.blocks.start, Arc::clone(&run));
            owners.push(FetchOwner {
                state: Arc::clone(self),
                run,
            });
        }
        owners
    }

    /// Counts bytes that came from the source.
    pub(super) fn count_fetched(&self, bytes: u64) {
        self.unread_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns the sources of a response of `bytes`. A fetched byte counts as the origin's the first time it is read.
    pub(super) fn count_read(&self, bytes: u64) -> ServedBytes {
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

/// The owner of a run, which has to fetch it. When it is dropped the run ends, and its waiters are woken.
#[derive(Debug)]
pub(super) struct FetchOwner {
    pub(super) state: Arc<ObjectState>,
    pub(super) run: Arc<FetchRun>,
}

impl FetchOwner {
    /// Ends the run.
    pub(super) fn finish(self, end: Result<(), ReadError>) {
        self.end(end);
    }

    fn end(&self, end: Result<(), ReadError>) {
        // Out of the table first: a waiter that is woken by a failure must not find the same run there again.
        self.remove();
        self.run.end(end);
    }

    /// Removes this run (and not a later one of the same blocks) from the table.
    fn remove(&self) {
        let mut runs = self.state.runs.lock();
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
        self.end(Err(ReadError::Stopping));
    }
}
