//! What a replica says of itself over HTTP.

use std::sync::Arc;

use millpond_process::http::Observed;
use prometheus::proto::MetricFamily;

use crate::metrics::Metrics;
use crate::node_reports::NodeReports;

/// A replica. One that waits to become the leader is ready as well.
#[derive(Clone)]
pub(crate) struct Replica {
    pub(crate) metrics: Metrics,
    pub(crate) fleet: Arc<NodeReports>,
}

impl Observed for Replica {
    async fn gather(&self) -> Vec<MetricFamily> {
        let (workers, drivers) = self.fleet.connected();
        for (role, count) in [("worker", workers), ("driver", drivers)] {
            self.metrics
                .connected
                .with_label_values(&[role])
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.metrics.registry().gather()
    }
}
