//! What the server of a mount says of itself over HTTP.

use std::sync::Arc;

use millpond_process::http::{Observed, register_build_info};
use prometheus::IntCounter;
use prometheus::proto::MetricFamily;

use millpond_cache::dataset::Dataset;
use millpond_fs::view::Registry;

/// Counted by the worker, which sees everything, and again by the views, which see a part.
const COUNTED_BY_WORKER: [&str; 2] = ["millpond_read_bytes_total", "millpond_read_opens_total"];

/// The server. Clones are the same server.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) dataset: Arc<Dataset>,
    pub(crate) views: Registry,
    pub(crate) metrics: Metrics,
}

/// All metrics of the process.
#[derive(Clone)]
pub(crate) struct Metrics {
    /// Those of worker, FUSE server and process.
    pub(crate) all: prometheus::Registry,
    /// Those of the views, some of which the worker has too.
    pub(crate) views: prometheus::Registry,
}

impl Metrics {
    /// Makes the registries, and counts the servers that the mount had before.
    ///
    /// # Errors
    /// Never in practice: the names are new.
    pub(crate) fn new(predecessors: u64) -> prometheus::Result<Self> {
        let all = prometheus::Registry::new();
        let restarts = IntCounter::new(
            "millpond_server_restarts_total",
            "How often the server of this mount was started again.",
        )?;
        restarts.inc_by(predecessors);
        all.register(Box::new(restarts))?;
        register_build_info(&all, env!("CARGO_PKG_VERSION"))?;
        Ok(Self {
            all,
            views: prometheus::Registry::new(),
        })
    }

    fn gather(&self) -> Vec<MetricFamily> {
        let mut families = self.all.gather();
        let of_views = self.views.gather().into_iter();
        families.extend(of_views.filter(|family| !COUNTED_BY_WORKER.contains(&family.name())));
        families
    }
}

impl Observed for Service {
    async fn gather(&self) -> Vec<MetricFamily> {
        // Includes opens of the last milliseconds.
        if let Err(error) = self.views.count_now().await {
            tracing::warn!(%error, "failed to count opens");
        }
        self.dataset.update_gauges();
        self.metrics.gather()
    }
}
