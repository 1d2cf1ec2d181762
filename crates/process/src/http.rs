//! `/metrics`, `/healthz` and `/readyz`: the HTTP endpoints of every process.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts, Registry, TextEncoder};
use tokio::net::TcpListener;
use tracing::error;

/// Content type of Prometheus' text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4";

/// State of a process that its HTTP endpoints report.
pub trait Observed: Clone + Send + Sync + 'static {
    /// Returns the current metrics of the process, one family for each name.
    fn gather(&self) -> impl Future<Output = Vec<MetricFamily>> + Send;

    /// Returns one line if the process is ready to serve.
    ///
    /// # Errors
    /// One line that names what the process still waits for; `/readyz` responds 503 with it.
    fn ready(&self) -> Result<&'static str, &'static str> {
        Ok("ok")
    }
}

/// Returns the routes of a process.
pub fn router<O: Observed>(observed: O) -> Router {
    Router::new()
        .route("/metrics", get(metrics::<O>))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready::<O>))
        .with_state(observed)
}

/// Opens the port of [`router`].
///
/// # Errors
/// If the address cannot be bound.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| io::Error::new(error.kind(), format!("failed to listen at {address}: {error}")))
}

/// Registers `millpond_build_info`, which names the version of the program.
///
/// # Errors
/// If the registry has that metric already.
pub fn register_build_info(registry: &Registry, version: &str) -> prometheus::Result<()> {
    let build = IntGaugeVec::new(
        Opts::new(
            "millpond_build_info",
            "Version of this program; the value is always 1.",
        ),
        &["version"],
    )?;
    build.with_label_values(&[version]).set(1);
    registry.register(Box::new(build))
}

async fn metrics<O: Observed>(State(observed): State<O>) -> Response {
    let mut text = String::new();
    match TextEncoder::new().encode_utf8(&observed.gather().await, &mut text) {
        Ok(()) => ([("content-type", TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            error!(%error, "failed to encode metrics; scrape answered with 500");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn ready<O: Observed>(State(observed): State<O>) -> (StatusCode, String) {
    match observed.ready() {
        Ok(line) => (StatusCode::OK, format!("{line}\n")),
        Err(line) => (StatusCode::SERVICE_UNAVAILABLE, format!("{line}\n")),
    }
}
