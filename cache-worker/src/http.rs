//! Metrics and readiness of the worker over HTTP.

use std::sync::Arc;

use millpond_process::http::Observed;
use prometheus::Registry;
use prometheus::proto::MetricFamily;

use crate::service::Datasets;

/// The worker's observer. A worker that responds is ready: its socket is opened first.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) registry: Registry,
    pub(super) datasets: Arc<Datasets>,
}

impl Observed for Worker {
    async fn gather(&self) -> Vec<MetricFamily> {
        for (_, served) in self.datasets.all() {
            served.dataset.update_gauges();
        }
        self.registry.gather()
    }
}
