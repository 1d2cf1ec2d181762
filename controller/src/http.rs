//! `/metrics`, `/healthz` and `/readyz`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::TextEncoder;
use tracing::error;

use crate::metrics::Metrics;
use crate::node_reports::NodeReports;

/// Returns the HTTP routes. A replica that is not the leader is ready as well.
pub(crate) fn router(metrics: Metrics, reports: Arc<NodeReports>) -> Router {
    Router::new()
        .route("/metrics", get(encode_metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async { "ok\n" }))
        .with_state((metrics, reports))
}

async fn encode_metrics(State((metrics, reports)): State<(Metrics, Arc<NodeReports>)>) -> Response {
    let (workers, drivers) = reports.connected();
    for (role, count) in [("worker", workers), ("driver", drivers)] {
        metrics
            .connected
            .with_label_values(&[role])
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    match TextEncoder::new().encode_to_string(&metrics.registry().gather()) {
        Ok(text) => text.into_response(),
        Err(error) => {
            error!(%error, "failed to encode metrics; scrape answered with 500");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
