//! What the server of a mount says of itself over HTTP.

use std::sync::Arc;

use millpond_cache::dataset::Dataset;
use millpond_process::http::{Observed, register_build_info};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, Registry};

/// The server. Clones are the same server.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) dataset: Arc<Dataset>,
    pub(crate) views: millpond_fs::view::Registry,
    pub(crate) metrics: Registry,
}

/// Creates the registry of all metrics of the process, and counts the servers that the mount had before.
///
/// # Errors
/// Never in practice: the names are new.
pub(crate) fn registry(predecessors: u64) -> prometheus::Result<Registry> {
    let registry = Registry::new();
    let restarts = IntCounter::new(
        "millpond_server_restarts_total",
        "How often the server of this mount was started again.",
    )?;
    restarts.inc_by(predecessors);
    registry.register(Box::new(restarts))?;
    register_build_info(&registry, env!("CARGO_PKG_VERSION"))?;
    Ok(registry)
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
