//! `/metrics` and `/healthz`, for Prometheus and whoever asks whether the mount lives.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{IntCounter, IntGaugeVec, Opts, TextEncoder};
use std::sync::Arc;
use tokio::net::TcpListener;

use millpond_cache::dataset::Dataset;
use millpond_fs::view::Registry;

/// Counted by the worker, which sees everything, and again by the views, which see a part.
const COUNTED_BY_WORKER: [&str; 2] = ["millpond_read_bytes_total", "millpond_read_opens_total"];

/// What the handlers need.
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
        let build = IntGaugeVec::new(
            Opts::new(
                "millpond_build_info",
                "The version of this program; the value is always 1.",
            ),
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        all.register(Box::new(build))?;
        Ok(Self {
            all,
            views: prometheus::Registry::new(),
        })
    }

    fn text(&self) -> prometheus::Result<String> {
        let mut families = self.all.gather();
        let of_views = self.views.gather().into_iter();
        families.extend(of_views.filter(|family| !COUNTED_BY_WORKER.contains(&family.name())));
        let mut text = String::new();
        TextEncoder::new().encode_utf8(&families, &mut text)?;
        Ok(text)
    }
}

impl Service {
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .with_state(self)
    }
}

/// Listens for those who want to see metrics.
///
/// # Errors
/// Names the flag.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("failed to listen at {address}: choose another address for --metrics"))
}

async fn metrics(State(service): State<Service>) -> Response {
    // Opens of some milliseconds ago shall be in it.
    if let Err(error) = service.views.count_now().await {
        tracing::warn!(%error, "failed to count opens");
    }
    service.dataset.update_gauges();
    match service.metrics.text() {
        Ok(text) => ([("content-type", "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
