//! Fetch runs: adjacent missing blocks of an object that one request brings.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use millpond_core::ReadError;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::fetch::MemoryPermit;

/// Blocks in one request: at 8 MiB the cost of a request no longer shows against S3, and several fit in the memory
/// budget.
pub(super) const MAX_RUN_BLOCKS: u64 = 8;

/// Groups ascending block numbers into runs of adjacent blocks, each at most [`MAX_RUN_BLOCKS`] long.
pub(super) fn group_into_runs(missing: impl IntoIterator<Item = u64>) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for block in missing {
        match runs.last_mut() {
            Some(run) if run.end == block && run.end - run.start < MAX_RUN_BLOCKS => run.end = block + 1,
            _ => runs.push(block..block + 1),
        }
    }
    runs
}

/// A fetch run in progress, shared by its owner and its waiters.
#[derive(Debug)]
pub(super) struct FetchRun {
    pub(super) blocks: Range<u64>,
    /// Whether a reader waited for it from its start.
    pub(super) awaited: bool,
    progress: watch::Sender<RunProgress>,
    /// Blocks that could not be stored on disk, for the waiters.
    in_memory: Mutex<BTreeMap<u64, BlockInMemory>>,
}

/// A block in memory with its share of the budget.
#[derive(Clone, Debug)]
pub(super) struct BlockInMemory {
    pub(super) content: Bytes,
    pub(super) _memory: Arc<MemoryPermit>,
}

#[derive(Clone, Debug)]
struct RunProgress {
    /// The first block that has not arrived.
    next: u64,
    /// The result, once the run has ended.
    end: Option<Result<(), ReadError>>,
}

impl FetchRun {
    pub(super) fn new(blocks: Range<u64>, awaited: bool) -> Self {
        let progress = watch::Sender::new(RunProgress {
            next: blocks.start,
            end: None,
        });
        Self {
            blocks,
            awaited,
            progress,
            in_memory: Mutex::default(),
        }
    }

    /// Waits until a block has arrived, or the run has ended without it.
    pub(super) async fn wait(&self, block: u64) -> Result<(), ReadError> {
        let mut progress = self.progress.subscribe();
        let reached = progress
            .wait_for(|progress| progress.next > block || progress.end.is_some())
            .await;
        match reached {
            Ok(progress) if progress.next > block => Ok(()),
            Ok(progress) => progress.end.clone().unwrap_or(Err(ReadError::Stopping)),
            Err(_closed) => Err(ReadError::Stopping),
        }
    }

    /// Returns a block that is held in memory for the waiters.
    pub(super) fn block_in_memory(&self, block: u64) -> Option<Bytes> {
        self.in_memory
            .lock()
            .get(&block)
            .map(|block| block.content.clone())
    }

    /// Holds a block in memory for the waiters.
    pub(super) fn hold(&self, block: u64, content: BlockInMemory) {
        self.in_memory.lock().insert(block, content);
    }

    /// Wakes the waiters of a block: it is where readers find it.
    pub(super) fn arrived(&self, block: u64) {
        self.progress.send_modify(|progress| progress.next = block + 1);
    }

    /// Ends the run with a result, unless it has ended.
    pub(super) fn end(&self, end: Result<(), ReadError>) {
        self.progress.send_if_modified(|progress| {
            let is_first = progress.end.is_none();
            progress.end.get_or_insert(end);
            is_first
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_neighbours_and_splits_long_runs() {
        assert_eq!(group_into_runs([]), []);
        assert_eq!(group_into_runs([0, 1, 2, 5, 6, 9]), [0..3, 5..7, 9..10]);
        assert_eq!(group_into_runs(0..20), [0..8, 8..16, 16..20]);
    }

    #[test]
    fn every_block_is_in_exactly_one_run() {
        let missing: Vec<u64> = (0..500).filter(|block| block * 2_654_435_761 % 7 < 4).collect();
        let again: Vec<u64> = group_into_runs(missing.clone()).into_iter().flatten().collect();
        assert_eq!(missing, again);
    }
}
