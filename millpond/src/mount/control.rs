//! Control socket of the server: HTTP in the run directory, for the commands of the mount's owner.
//!
//! | request | response |
//! |---|---|
//! | `GET /stats` | [`StatsResponse`] |
//! | `GET /health` | 200 |
//! | `POST /refresh` | [`RefreshResponse`], after the source is listed and new opens see the result |
//! | `POST /warm` with [`LoadOptions`] | lines of [`LoadReport`] |
//!
//! Every process that can enter the run directory may send requests. An error is a status with a reason as text. A load
//! runs as long as its client is connected.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use millpond_cache::dataset::{Dataset, DatasetStats, LoadOptions, LoadProgress};
use millpond_fs::fuse::FuseServer;
use millpond_fs::view::Registry;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};
use tracing::warn;

use super::spec::ViewKind;

/// Most concurrent loads; more are refused.
const MAX_LOADS: usize = 4;

/// How long a refresh waits for the FUSE tree to publish its generation: normally milliseconds.
const GENERATION_VISIBLE_TIMEOUT: Duration = Duration::from_secs(10);

/// State of the handlers.
#[derive(Clone)]
pub(crate) struct Control {
    pub(crate) dataset: Arc<Dataset>,
    pub(crate) views: Registry,
    pub(crate) fuse: Arc<FuseServer>,
    pub(crate) mount: MountStats,
    /// Set once the supervisor has exited.
    pub(crate) orphaned: Arc<AtomicBool>,
    pub(crate) loads: Arc<Semaphore>,
}

/// Figures of the mount besides its Dataset's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MountStats {
    /// Mount directory.
    pub(crate) directory: PathBuf,
    /// Kind of view.
    pub(crate) view: ViewKind,
    /// Mounted generation; `None`: the view follows the newest.
    pub(crate) generation: Option<u64>,
    /// Number of servers before this one.
    pub(crate) predecessors: u64,
    /// Version of the server's program.
    pub(crate) version: String,
    /// PID of the server.
    pub(crate) server_pid: u32,
    /// Whether a supervisor is running that would restart the server.
    pub(crate) supervised: bool,
    /// Log file of the mount's processes; `None`: they log to standard error.
    pub(crate) log: Option<PathBuf>,
}

/// Response to `GET /stats`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StatsResponse {
    /// The mount.
    pub(crate) mount: MountStats,
    /// Its Dataset.
    #[serde(flatten)]
    pub(crate) dataset: DatasetStats,
}

/// Response to `POST /refresh`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct RefreshResponse {
    /// The newest generation.
    pub(crate) generation: u64,
    /// Whether it is new.
    pub(crate) changed: bool,
    /// Files in it.
    pub(crate) files: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

/// Line of the response to `POST /warm`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum LoadReport {
    /// The load continues.
    Progress(LoadProgress),
    /// The load ended. Last line.
    Ended(LoadProgress),
    /// The load failed. Last line.
    Failed {
        /// Why.
        reason: String,
    },
}

impl Control {
    pub(crate) fn new(
        dataset: Arc<Dataset>,
        views: Registry,
        fuse: Arc<FuseServer>,
        mount: MountStats,
        orphaned: Arc<AtomicBool>,
    ) -> Self {
        Self {
            dataset,
            views,
            fuse,
            mount,
            orphaned,
            loads: Arc::new(Semaphore::new(MAX_LOADS)),
        }
    }

    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/stats", get(stats))
            .route("/health", get(|| async { "ok\n" }))
            .route("/refresh", post(refresh))
            .route("/warm", post(warm))
            .with_state(self)
    }
}

/// Error response: a status with a reason as text.
struct Failure(StatusCode, String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

async fn stats(State(control): State<Control>) -> Result<Json<StatsResponse>, Failure> {
    // Includes opens of the last milliseconds.
    let counted = control.views.count_now().await;
    counted.map_err(|error| {
        Failure(
            StatusCode::INTERNAL_SERVER_ERROR,
            millpond_process::with_causes(&error),
        )
    })?;
    Ok(Json(StatsResponse {
        mount: MountStats {
            supervised: !control.orphaned.load(Ordering::Relaxed),
            ..control.mount
        },
        dataset: control.dataset.stats(),
    }))
}

async fn refresh(State(control): State<Control>) -> Result<Json<RefreshResponse>, Failure> {
    let refreshed = control
        .dataset
        .refresh()
        .await
        .map_err(|error| Failure(StatusCode::BAD_GATEWAY, millpond_process::with_causes(&error)))?;
    // The caller's next open must see the new generation.
    let mut published = control.fuse.live_generation();
    let published = published.wait_for(|newest| *newest >= Some(refreshed.generation));
    if tokio::time::timeout(GENERATION_VISIBLE_TIMEOUT, published)
        .await
        .is_err()
    {
        warn!(generation = %refreshed.generation, timeout = ?GENERATION_VISIBLE_TIMEOUT, "the FUSE tree has not published the new generation in time");
    }
    Ok(Json(RefreshResponse {
        generation: refreshed.generation.0,
        changed: refreshed.changed,
        files: refreshed.files,
        bytes: refreshed.bytes,
    }))
}

async fn warm(State(control): State<Control>, Json(options): Json<LoadOptions>) -> Result<Response, Failure> {
    let permit = Arc::clone(&control.loads).try_acquire_owned().map_err(|_full| {
        let reason = format!("{MAX_LOADS} loads are running already: wait for one to end");
        Failure(StatusCode::TOO_MANY_REQUESTS, reason)
    })?;
    let (sender, receiver) = watch::channel(LoadProgress::default());
    // The load is part of the response body: it is cancelled when its client disconnects.
    let load = async move {
        let result = control.dataset.load(options, &sender).await;
        drop(permit);
        Step::Ended(result.map_err(|error| millpond_process::with_causes(&error)))
    };
    let progress = tokio_stream::wrappers::WatchStream::from_changes(receiver).map(Step::Progress);
    let mut steps = futures::stream::select(progress, futures::stream::once(load)).boxed();
    // A load that cannot start is an error status and not an empty body.
    let first = match steps.next().await {
        Some(Step::Ended(Err(reason))) => return Err(Failure(StatusCode::BAD_REQUEST, reason)),
        Some(step) => step,
        None => {
            return Err(Failure(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the load ended without a result".to_owned(),
            ));
        }
    };
    let lines = futures::stream::once(async { first })
        .chain(steps)
        .map(line)
        .boxed();
    Ok(ndjson(lines))
}

/// Next event of a load.
enum Step {
    Progress(LoadProgress),
    Ended(Result<LoadProgress, String>),
}

fn line(step: Step) -> Bytes {
    let report = match step {
        Step::Progress(progress) => LoadReport::Progress(progress),
        Step::Ended(Ok(progress)) => LoadReport::Ended(progress),
        Step::Ended(Err(reason)) => LoadReport::Failed { reason },
    };
    let mut line = serde_json::to_vec(&report).unwrap_or_default();
    line.push(b'\n');
    Bytes::from(line)
}

fn ndjson(lines: BoxStream<'static, Bytes>) -> Response {
    let body = Body::from_stream(lines.map(Ok::<_, std::convert::Infallible>));
    ([("content-type", "application/x-ndjson")], body).into_response()
}
