//! Where counted opens go: to the worker, for eviction, and into the metrics.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use millpond_core::{OpenCount, Worker};
use parking_lot::RwLock;

use super::super::catalog_lookup::CatalogLookup;
use super::fuse_open_log::FuseOpenLog;
use crate::metrics::{ServedFrom, ViewMetrics};

/// The opens of one drain of a group, by inode of its generation.
pub(crate) type OpensByInode = HashMap<u64, u64>;

/// See the module's documentation.
pub(crate) struct OpenSink {
    worker: RwLock<Option<Arc<dyn Worker>>>,
    pub(crate) ledger: Arc<FuseOpenLog>,
    pub(crate) metrics: ViewMetrics,
}

impl OpenSink {
    pub(crate) fn new(metrics: ViewMetrics) -> Self {
        let ledger = Arc::new(FuseOpenLog::new(metrics.clone()));
        Self {
            worker: RwLock::default(),
            ledger,
            metrics,
        }
    }

    pub(crate) fn connect(&self, worker: Option<Arc<dyn Worker>>) {
        *self.worker.write() = worker;
    }

    /// Counts opens of files of one generation.
    pub(crate) fn count(&self, places: &dyn CatalogLookup, opens: &OpensByInode) {
        let now = Instant::now();
        let mut report = Vec::with_capacity(opens.len());
        for (inode, times) in opens {
            let Some((id, size_bytes)) = places.object_at(*inode) else {
                self.metrics.events_lost.inc_by(*times);
                continue;
            };
            let times = self.ledger.settle(id, *times, now);
            if times > 0 {
                self.metrics.opens(ServedFrom::Local).inc_by(times);
                self.metrics
                    .bytes(ServedFrom::Local)
                    .inc_by(size_bytes.saturating_mul(times));
                report.push(OpenCount { id, times });
            }
        }
        let worker = self.worker.read().clone();
        if let Some(worker) = worker
            && !report.is_empty()
        {
            worker.count_kernel_opens(&report);
        }
    }
}
