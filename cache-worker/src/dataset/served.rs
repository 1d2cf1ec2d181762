//! Which reads were answered from where: the one place that counts them.
//!
//! The worker counts everything. What it serves itself it sees ([`Worker::land`](protocol::Worker::land) and
//! [`read`](protocol::Worker::read)); opens of complete objects by passthrough it sees in
//! [`local`](protocol::Worker::local); opens that the kernel answers alone the driver reports through
//! [`opened`](protocol::Worker::opened). The last two count as a read of the whole object.
//!
//! A kernel view reports *each* open, so also the one that follows a landing, and those that FUSE served. Such an
//! open was counted when it was served, and is remembered here until its report comes, so that nothing counts twice.

use std::collections::{HashMap, VecDeque};

use catalog::ObjectId;
use parking_lot::Mutex;
use protocol::Served;

use crate::metrics::ReadMetrics;

/// Opens remembered until their report comes. Reports are at most one queue of the kernel (16,384 events) behind.
const MAX_REMEMBERED: usize = 65_536;

/// Counts reads and opens.
#[derive(Debug)]
pub(super) struct Reads {
    metrics: ReadMetrics,
    remembered: Mutex<Remembered>,
}

#[derive(Debug, Default)]
struct Remembered {
    opens: HashMap<ObjectId, u64>,
    order: VecDeque<ObjectId>,
}

impl Reads {
    pub(super) fn new(metrics: ReadMetrics) -> Self {
        Self {
            metrics,
            remembered: Mutex::default(),
        }
    }

    /// The counters behind it.
    pub(super) const fn metrics(&self) -> &ReadMetrics {
        &self.metrics
    }

    /// Counts an object that was fetched whole for a reader who will now open it.
    pub(super) fn landed(&self, id: ObjectId, size_bytes: u64) {
        self.metrics.origin_opens.inc();
        self.metrics.origin_bytes.inc_by(size_bytes);
        self.remember(id);
    }

    /// Counts an open of a complete object through FUSE.
    pub(super) fn passed_through(&self, id: ObjectId, size_bytes: u64) {
        self.metrics.local_opens.inc();
        self.metrics.local_bytes.inc_by(size_bytes);
        self.remember(id);
    }

    /// Counts an open of an incomplete object through FUSE.
    pub(super) fn opened_incomplete(&self, id: ObjectId) {
        self.metrics.origin_opens.inc();
        self.remember(id);
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

    /// Counts opens that the kernel reports, but for those that are counted already.
    pub(super) fn reported(&self, id: ObjectId, times: u64, size_bytes: impl FnOnce() -> u64) {
        let counted = {
            let mut remembered = self.remembered.lock();
            match remembered.opens.get_mut(&id) {
                Some(opens) => {
                    let counted = times.min(*opens);
                    *opens -= counted;
                    counted
                }
                None => 0,
            }
        };
        let new = times - counted;
        if new > 0 {
            self.metrics.local_opens.inc_by(new);
            self.metrics.local_bytes.inc_by(size_bytes().saturating_mul(new));
        }
    }

    fn remember(&self, id: ObjectId) {
        let mut remembered = self.remembered.lock();
        let remembered = &mut *remembered;
        *remembered.opens.entry(id).or_insert(0) += 1;
        remembered.order.push_back(id);
        if remembered.order.len() > MAX_REMEMBERED
            && let Some(oldest) = remembered.order.pop_front()
            && let Some(opens) = remembered.opens.get_mut(&oldest)
        {
            *opens = opens.saturating_sub(1);
            if *opens == 0 {
                remembered.opens.remove(&oldest);
            }
        }
    }
}
