//! Which reads were answered from where: the one place that counts them.
//!
//! The worker counts everything. What it serves itself it sees ([`Worker::land`](millpond_core::Worker::land) and
//! [`read`](millpond_core::Worker::read)); opens of complete objects through FUSE it sees in
//! [`local`](millpond_core::Worker::local); opens that the kernel answered alone the driver reports through
//! [`opened`](millpond_core::Worker::opened). A landing and the last two count as a read of the whole object: from the origin
//! where this very landing fetched it, else a local one.
//!
//! What was fetched ahead of a reader who walks a directory is the origin's the first time it is opened, as read-ahead
//! within a file is the first time it is read: so the hit ratio is that of the bytes that came from the source. What a
//! load fetched is local from the first time on.
//!
//! The driver must not report an open that this worker had a part in (the one that follows a landing, or one that
//! FUSE served): it would be counted twice.

use millpond_core::ObjectId;
use millpond_core::ServedBytes;
use moka::sync::Cache;

use crate::metrics::ReadMetrics;

/// Objects fetched ahead and not opened yet that are remembered (5 MiB of heap); others are local at once. More than all
/// walks fetch ahead at a time.
const AHEAD_MAX: u64 = 65_536;

/// Counts reads and opens.
#[derive(Debug)]
pub(super) struct ReadCounters {
    metrics: ReadMetrics,
    /// Fetched ahead of a walk, and not opened yet.
    ahead: Cache<ObjectId, ()>,
}

impl ReadCounters {
    pub(super) fn new(metrics: ReadMetrics) -> Self {
        let ahead = Cache::new(AHEAD_MAX);
        Self { metrics, ahead }
    }

    /// Says that an object is about to be fetched ahead of a walk: before, since a reader may wait for it and be counted
    /// at once.
    pub(super) fn prefetch_started(&self, id: ObjectId) {
        self.ahead.insert(id, ());
    }

    /// Takes that back: it was not this fetch that brought it.
    pub(super) fn prefetch_cancelled(&self, id: ObjectId) {
        self.ahead.invalidate(&id);
    }

    /// The counters behind it.
    pub(super) const fn metrics(&self) -> &ReadMetrics {
        &self.metrics
    }

    /// Counts an object that was fetched whole for a reader who will now open it.
    pub(super) fn landed(&self, size_bytes: u64) {
        self.metrics.origin_opens.inc();
        self.metrics.origin_bytes.inc_by(size_bytes);
    }

    /// Counts opens of a complete object.
    pub(super) fn opened_complete(&self, id: ObjectId, mut times: u64, size_bytes: u64) {
        if times > 0 && self.ahead.remove(&id).is_some() {
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

    /// Counts the bytes of one answer.
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
