//! The counters of reads, by where their bytes came from: the only place that counts them.
//!
//! The worker counts everything: what it serves itself
//! ([`Worker::fetch_to_landing`](millpond_core::Worker::fetch_to_landing) and
//! [`read`](millpond_core::Worker::read)); opens of complete objects through FUSE
//! ([`open_local`](millpond_core::Worker::open_local)); and opens by the kernel alone, which the driver reports
//! ([`count_kernel_opens`](millpond_core::Worker::count_kernel_opens)). A landing and the last two count as a read
//! of the complete object: from the origin if this very landing fetched it, else local.
//!
//! A prefetched file counts as the origin's the first time it is opened, as readahead within a file does the first
//! time it is read: so the hit ratio is that of the bytes that came from the source. What a load fetched is local
//! from the first time on.
//!
//! The driver must not report an open that this worker took part in (the one that follows a landing, or one that
//! FUSE served): it would be counted twice.

use millpond_core::ObjectId;
use millpond_core::ServedBytes;
use moka::sync::Cache;

use crate::metrics::ReadMetrics;

/// Prefetched and unopened objects that are remembered (5 MiB of heap); others count as local. More than all
/// prefetches in progress have.
const MAX_PREFETCHED: u64 = 65_536;

/// Counts reads and opens.
#[derive(Debug)]
pub(super) struct ReadCounters {
    metrics: ReadMetrics,
    /// Prefetched, and not opened yet.
    prefetched: Cache<ObjectId, ()>,
}

impl ReadCounters {
    pub(super) fn new(metrics: ReadMetrics) -> Self {
        let prefetched = Cache::new(MAX_PREFETCHED);
        Self { metrics, prefetched }
    }

    /// Records that an object is about to be prefetched: before the fetch, since a reader may join it and be
    /// counted before it returns.
    pub(super) fn prefetch_started(&self, id: ObjectId) {
        self.prefetched.insert(id, ());
    }

    /// Reverts [`prefetch_started`](Self::prefetch_started): another fetch brought the object.
    pub(super) fn prefetch_cancelled(&self, id: ObjectId) {
        self.prefetched.invalidate(&id);
    }

    /// Returns the counters.
    pub(super) const fn metrics(&self) -> &ReadMetrics {
        &self.metrics
    }

    /// Counts an object that was fetched completely for a reader that will now open it.
    pub(super) fn landed(&self, size_bytes: u64) {
        self.metrics.origin_opens.inc();
        self.metrics.origin_bytes.inc_by(size_bytes);
    }

    /// Counts opens of a complete object.
    pub(super) fn opened_complete(&self, id: ObjectId, mut times: u64, size_bytes: u64) {
        if times > 0 && self.prefetched.remove(&id).is_some() {
            self.landed(size_bytes);
            times -= 1;
        }
        self.metrics.local_opens.inc_by(times);
        self.metrics.local_bytes.inc_by(size_bytes.saturating_mul(times));
    }

    /// Counts an open of an incomplete object through FUSE; its bytes are counted as they are read.
    pub(super) fn opened_incomplete(&self) {
        self.metrics.origin_opens.inc();
    }

    /// Counts the bytes of one response.
    pub(super) fn served(&self, served: ServedBytes) {
        let ServedBytes {
            local_bytes,
            peer_bytes,
            origin_bytes,
        } = served;
        self.metrics.local_bytes.inc_by(local_bytes);
        self.metrics.peer_bytes.inc_by(peer_bytes);
        self.metrics.origin_bytes.inc_by(origin_bytes);
    }
}
