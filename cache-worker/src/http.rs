//! `/metrics`, `/healthz` and `/readyz`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::TextEncoder;
use tracing::error;

use crate::service::Datasets;

#[derive(Clone)]
struct Metrics {
    registry: prometheus::Registry,
    datasets: Arc<Datasets>,
}

/// What is answered over HTTP. A worker that answers at all is ready: its socket is open before.
pub(super) fn router(registry: prometheus::Registry, datasets: Arc<Datasets>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async { "ok\n" }))
        .with_state(Metrics { registry, datasets })
}

async fn metrics(State(metrics): State<Metrics>) -> Response {
    for (_, served) in metrics.datasets.all() {
        served.dataset.update_gauges();
    }
    match TextEncoder::new().encode_to_string(&metrics.registry.gather()) {
        Ok(text) => text.into_response(),
        Err(error) => {
            error!(%error, "failed to write down the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
