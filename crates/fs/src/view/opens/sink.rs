//! The destination of counted opens: the worker, which evicts by them and counts reads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use millpond_catalog::{Catalog, Nid};
use millpond_core::{OpenCount, Worker};
use parking_lot::RwLock;

use super::fuse_open_log::FuseOpenLog;
use crate::metrics::ViewMetrics;

/// The opens of one drain of a group, by inode of its generation.
pub(crate) type OpensByInode = HashMap<u64, u64>;

/// Sends the opens that the kernel served alone to the worker. See the module's documentation.
pub(crate) struct OpenSink {
    worker: RwLock<Option<Arc<dyn Worker>>>,
    pub(crate) fuse_opens: Arc<FuseOpenLog>,
    pub(crate) metrics: ViewMetrics,
}

impl OpenSink {
    pub(crate) fn new(metrics: ViewMetrics) -> Self {
        let fuse_opens = Arc::new(FuseOpenLog::new(metrics.clone()));
        Self {
            worker: RwLock::default(),
            fuse_opens,
            metrics,
        }
    }

    pub(crate) fn connect(&self, worker: Option<Arc<dyn Worker>>) {
        *self.worker.write() = worker;
    }

    /// Reports opens of files of one generation.
    pub(crate) fn count(&self, catalog: &Catalog, opens: &OpensByInode) {
        let now = Instant::now();
        let mut report = Vec::with_capacity(opens.len());
        for (inode, times) in opens {
            let Ok(id) = catalog.image().object_id(Nid(*inode)) else {
                self.metrics.events_lost.inc_by(*times);
                continue;
            };
            let times = self.fuse_opens.deduct(id, *times, now);
            if times > 0 {
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
