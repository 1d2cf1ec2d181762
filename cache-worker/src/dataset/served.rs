//! Which reads were answered from where: the one place that counts them.
//!
//! The worker counts everything. What it serves itself it sees ([`Worker::land`](protocol::Worker::land) and
//! [`read`](protocol::Worker::read)); opens of complete objects through FUSE it sees in
//! [`local`](protocol::Worker::local); opens that the kernel answered alone the driver reports through
//! [`opened`](protocol::Worker::opened). A landing and the last two count as a read of the whole object: from the origin
//! where this very landing fetched it, else (fetched ahead of its reader, or for another one) a local one.
//!
//! The driver must not report an open that this worker had a part in (the one that follows a landing, or one that
//! FUSE served), and not count reads under the same names: it would count twice.

use protocol::Served;

use crate::metrics::ReadMetrics;

/// Counts reads and opens.
#[derive(Debug)]
pub(super) struct Reads {
    metrics: ReadMetrics,
}

impl Reads {
    pub(super) const fn new(metrics: ReadMetrics) -> Self {
        Self { metrics }
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
    pub(super) fn opened_complete(&self, times: u64, size_bytes: u64) {
        self.metrics.local_opens.inc_by(times);
        self.metrics.local_bytes.inc_by(size_bytes.saturating_mul(times));
    }

    /// Counts an open of an incomplete object through FUSE; its bytes are counted as they are read.
    pub(super) fn opened_incomplete(&self) {
        self.metrics.origin_opens.inc();
    }

    /// Counts the bytes of one answer.
    pub(super) fn served(&self, served: Served) {
        let Served {
            local_bytes,
            peer_bytes,
            origin_bytes,
        } = served;
        self.metrics.local_bytes.inc_by(local_bytes);
        self.metrics.peer_bytes.inc_by(peer_bytes);
        self.metrics.origin_bytes.inc_by(origin_bytes);
    }
}
