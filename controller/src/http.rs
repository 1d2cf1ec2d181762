//! The metrics and the readiness of a replica.

use std::sync::Arc;

use millpond_process::http::Observed;
use prometheus::proto::MetricFamily;

use crate::metrics::Metrics;
use crate::node_reports::NodeReports;

/// A replica. It is ready also while it is not the leader.
#[derive(Clone)]
pub(crate) struct Replica {
    pub(crate) metrics: Metrics,
    pub(crate) node_reports: Arc<NodeReports>,
}

impl Observed for Replica {
    async fn gather(&self) -> Vec<MetricFamily> {
        let (workers, drivers) = self.node_reports.connected();
        for (role, count) in [("worker", workers), ("driver", drivers)] {
            self.metrics
                .connected
                .with_label_values(&[role])
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.metrics.registry().gather()
    }
}
