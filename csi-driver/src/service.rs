//! `/metrics`, `/healthz` and `/readyz`.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts, Registry, TextEncoder};
use tracing::warn;

use crate::node::{Datasets, Volumes};

/// Counted by the workers, who are told of what the kernel serves.
const COUNTED_BY_WORKERS: [&str; 2] = ["millpond_read_bytes_total", "millpond_read_opens_total"];

/// What is asked about.
#[derive(Clone)]
pub(crate) struct Service {
    process: Registry,
    /// Empty while another driver serves the node.
    serving: Arc<OnceLock<(Arc<Datasets>, Arc<Volumes>)>>,
}

impl Service {
    pub(crate) fn new() -> prometheus::Result<Self> {
        let process = Registry::new();
        let build = IntGaugeVec::new(
            Opts::new(
                "millpond_build_info",
                "The version of this program; the value is always 1.",
            ),
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        process.register(Box::new(build))?;
        Ok(Self {
            process,
            serving: Arc::default(),
        })
    }

    pub(crate) fn serve(&self, datasets: Arc<Datasets>, volumes: Arc<Volumes>) {
        // Once in the life of a process.
        let _set = self.serving.set((datasets, volumes));
    }

    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .with_state(self)
    }
}

/// A driver that waits for its predecessor is ready: the old one is only told to end when the new one is.
async fn ready(State(service): State<Service>) -> (StatusCode, &'static str) {
    match service.serving.get() {
        None => (StatusCode::OK, "standing by\n"),
        Some((_, volumes)) if volumes.is_ready() => (StatusCode::OK, "ok\n"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "taking over\n"),
    }
}

async fn metrics(State(service): State<Service>) -> Response {
    let mut gathered = service.process.gather();
    if let Some((datasets, _)) = service.serving.get() {
        // Opens of some milliseconds ago shall be in it.
        if let Err(error) = datasets.count_now().await {
            warn!(%error, "failed to count opens");
        }
        gathered.extend(datasets.metrics().iter().flat_map(Registry::gather));
    }
    let mut text = String::new();
    match TextEncoder::new().encode_utf8(&merge(gathered), &mut text) {
        Ok(()) => ([("content-type", "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Puts the same families of several Datasets together: each may be told once.
fn merge(families: Vec<MetricFamily>) -> Vec<MetricFamily> {
    let mut merged: BTreeMap<String, MetricFamily> = BTreeMap::new();
    for mut family in families {
        if COUNTED_BY_WORKERS.contains(&family.name()) {
            continue;
        }
        match merged.get_mut(family.name()) {
            Some(known) => known.mut_metric().extend(family.take_metric()),
            None => {
                merged.insert(family.name().to_owned(), family);
            }
        }
    }
    merged.into_values().collect()
}
