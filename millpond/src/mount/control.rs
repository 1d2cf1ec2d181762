//! The server's control socket: HTTP in the run directory, for the commands of the mount's owner.
//!
//! | request | answer |
//! |---|---|
//! | `GET /stats` | [`StatsAnswer`] |
//! | `GET /health` | 200 |
//! | `POST /refresh` | [`RefreshAnswer`], when the source has been listed and new opens see it |
//! | `POST /warm` with [`LoadOptions`] | lines of [`LoadReport`] |
//!
//! Whoever can enter the run directory may ask. An error is a status and a reason in words. A load goes on as long as
//! its client listens.

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

/// Loads at once; more are refused.
const MAX_LOADS: usize = 4;

/// A new generation is shown within milliseconds; one that cannot be is in the log.
const GENERATION_VISIBLE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the handlers need.
#[derive(Clone)]
pub(crate) struct Control {
    pub(crate) dataset: Arc<Dataset>,
    pub(crate) views: Registry,
    pub(crate) fuse: Arc<FuseServer>,
    pub(crate) mount: MountStats,
    /// Set once the supervisor is gone.
    pub(crate) orphaned: Arc<AtomicBool>,
    pub(crate) loads: Arc<Semaphore>,
}

/// What is known of the mount besides its Dataset.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MountStats {
    /// Where it is.
    pub(crate) directory: PathBuf,
    /// How it is shown.
    pub(crate) view: ViewKind,
    /// The generation shown; absent where always the newest is.
    pub(crate) generation: Option<u64>,
    /// Servers that it had before this one.
    pub(crate) predecessors: u64,
    /// The server's program version.
    pub(crate) version: String,
    /// The server's process number.
    pub(crate) server_pid: u32,
    /// Whether a supervisor lives that would start another server.
    pub(crate) supervised: bool,
    /// What its processes log; absent where that is their standard error output.
    pub(crate) log: Option<PathBuf>,
}

/// The answer to `GET /stats`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StatsAnswer {
    /// The mount.
    pub(crate) mount: MountStats,
    /// Its Dataset.
    #[serde(flatten)]
    pub(crate) dataset: DatasetStats,
}

/// The answer to `POST /refresh`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct RefreshAnswer {
    /// The newest generation.
    pub(crate) generation: u64,
    /// Whether it is new.
    pub(crate) changed: bool,
    /// Files in it.
    pub(crate) files: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

/// A line of the answer to `POST /warm`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum LoadReport {
    /// How far it is.
    Progress(LoadProgress),
    /// It is over. The last word.
    Ended(LoadProgress),
    /// It came to nothing. The last word.
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

/// A status with a reason in words.
struct Failure(StatusCode, String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

async fn stats(State(control): State<Control>) -> Result<Json<StatsAnswer>, Failure> {
    // Opens of some milliseconds ago shall be in it.
    let counted = control.views.count_now().await;
    counted.map_err(|error| {
        Failure(
            StatusCode::INTERNAL_SERVER_ERROR,
            millpond_process::with_causes(&error),
        )
    })?;
    Ok(Json(StatsAnswer {
        mount: MountStats {
            supervised: !control.orphaned.load(Ordering::Relaxed),
            ..control.mount
        },
        dataset: control.dataset.stats(),
    }))
}

async fn refresh(State(control): State<Control>) -> Result<Json<RefreshAnswer>, Failure> {
    let refreshed = control
        .dataset
        .refresh()
        .await
        .map_err(|error| Failure(StatusCode::BAD_GATEWAY, millpond_process::with_causes(&error)))?;
    // Whoever asked shall find it at their next open.
    let mut shown = control.fuse.live_generation();
    let shown = shown.wait_for(|shown| *shown >= Some(refreshed.generation));
    if tokio::time::timeout(GENERATION_VISIBLE_TIMEOUT, shown)
        .await
        .is_err()
    {
        warn!(generation = %refreshed.generation, "the live tree does not show the new generation yet");
    }
    Ok(Json(RefreshAnswer {
        generation: refreshed.generation.0,
        changed: refreshed.changed,
        files: refreshed.files,
        bytes: refreshed.bytes,
    }))
}

async fn warm(State(control): State<Control>, Json(options): Json<LoadOptions>) -> Result<Response, Failure> {
    let permit = Arc::clone(&control.loads).try_acquire_owned().map_err(|_full| {
        let reason = format!("{MAX_LOADS} loads are under way already: wait for one to end");
        Failure(StatusCode::TOO_MANY_REQUESTS, reason)
    })?;
    let (sender, receiver) = watch::channel(LoadProgress::default());
    // The load is part of the answer: it ends with a client that listens no more.
    let load = async move {
        let result = control.dataset.load(options, &sender).await;
        drop(permit);
        Step::Ended(result.map_err(|error| millpond_process::with_causes(&error)))
    };
    let progress = tokio_stream::wrappers::WatchStream::from_changes(receiver).map(Step::Progress);
    let mut steps = futures::stream::select(progress, futures::stream::once(load)).boxed();
    // What cannot begin is an error and not an empty answer.
    let first = match steps.next().await {
        Some(Step::Ended(Err(reason))) => return Err(Failure(StatusCode::BAD_REQUEST, reason)),
        Some(step) => step,
        None => {
            return Err(Failure(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the load vanished".to_owned(),
            ));
        }
    };
    let lines = futures::stream::once(async { first })
        .chain(steps)
        .map(line)
        .boxed();
    Ok(ndjson(lines))
}

/// What a load does next.
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
