//! Wiring of the worker, from start to exit.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use millpond_cluster::{
    Bootstrap, CertificateManager, ClientCertPolicy, Controller, Follower, Incoming, WorkerPlan,
};
use millpond_process::{Tasks, http};
use millpond_wire::plan;
use millpond_wire::worker::worker_server::WorkerServer;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tracing::{info, warn};

use super::context::{WorkerContext, read_buffers};
use super::headroom::{self, Headroom};
use super::http::Worker;
use super::loads::Loads;
use super::options::Options;
use super::plan::PlanApplier;
use super::reports::{SentReports, dataset_states};
use super::tiers::Tiers;
use crate::service::{Datasets, LocalIncoming, WorkerService};
use millpond_cache::PoolCapacity;
use millpond_cache::metrics::WorkerMetrics;

/// Interval of reports to the controller.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Debounce of reports that the controller waits for: a Dataset's first catalog, or its problem. Each checks all Datasets,
/// so news in quick succession is reported together.
const NEWS_DEBOUNCE: Duration = Duration::from_millis(100);

/// Remaining requests are aborted then: drivers retry them with the next worker.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest message: a response is at most a block and its frame, a notice some thousand opens.
const MAX_MESSAGE_BYTES: usize = 8 << 20;

/// Runs the worker until SIGTERM.
///
/// # Errors
/// If it cannot start, or a task has exited.
pub fn run(options: Options) -> Result<()> {
    millpond_process::telemetry::init(&millpond_process::telemetry::TelemetryOptions::default())?;
    millpond_process::raise_file_limit();
    millpond_process::tls::install();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("failed to start the worker's threads")?;
    let result = runtime.block_on(serve(options));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn serve(options: Options) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to handle signals")?;
    let tiers = Tiers::new(&options.tiers).context("invalid --tier")?;
    let controller = Controller::new(&options.controller).context("invalid --controller")?;
    let registry = prometheus::Registry::new();
    let withheld = headroom::gauge(&registry)?;
    let context = Arc::new(WorkerContext {
        main: PoolCapacity::new(tiers.main.bytes),
        memory: tiers.memory.as_ref().map(|tier| PoolCapacity::new(tier.bytes)),
        tiers,
        boot_id: millpond_process::boot_id().context("failed to read the kernel's boot id")?,
        read_buffer_bytes: options.read_buffer_bytes,
        read_buffers: read_buffers(options.total_read_buffer_bytes),
        metrics: WorkerMetrics::new(&registry)?,
        clients: millpond_cache::source::Clients::default(),
        news: Notify::new(),
    });
    let datasets = Arc::new(Datasets::default());
    let (requests, stop) = (TaskTracker::new(), CancellationToken::new());
    let loads = Arc::new(Loads::new(Arc::clone(&datasets), requests.clone(), stop.clone()));

    let membership = CertificateManager::new(Bootstrap {
        controller: controller.clone(),
        authorities: options.ca.clone(),
        token: options.token.clone(),
    });
    let identity = membership.identity();
    let (follower, mut events) =
        Follower::<WorkerPlan>::for_pool(controller, identity.clone(), &options.pool);

    let mut tasks = Tasks::new();
    let service = WorkerService::new(Arc::clone(&datasets), requests.clone());
    let service = WorkerServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let socket = LocalIncoming::bind(&options.socket)
        .with_context(|| format!("failed to listen at {}", options.socket.display()))?;
    let (local, ended) = (Server::builder().add_service(service.clone()), stop.clone());
    let serving = local.serve_with_incoming_shutdown(socket, ended.cancelled_owned());
    tasks.spawn_fallible("the socket", serving);
    let listener = http::listen(options.data_address).await?;
    let incoming = Incoming::new(listener, identity, ClientCertPolicy::Required);
    let (data, ended) = (Server::builder().add_service(service), stop.clone());
    let serving = data.serve_with_incoming_shutdown(incoming, ended.cancelled_owned());
    tasks.spawn_fallible("the data port", serving);
    let listener = http::listen(options.metrics_address).await?;
    let observed = Worker {
        registry,
        datasets: Arc::clone(&datasets),
    };
    let serving = axum::serve(listener, http::router(observed))
        .with_graceful_shutdown(stop.clone().cancelled_owned())
        .into_future();
    tasks.spawn_fallible("the metrics service", serving);
    tasks.spawn("the certificate renewal", membership.run(stop.clone()));
    tasks.spawn("the plan stream", follower.run(stop.clone()));
    let headroom = Headroom::of(
        &context.tiers.main,
        options.min_free_percent,
        Arc::clone(&context.main),
        Arc::clone(&datasets),
        withheld.clone(),
    );
    let path = &context.tiers.main.path;
    let headroom =
        headroom.with_context(|| format!("failed to read the free space of {}", path.display()))?;
    if let Some(headroom) = headroom {
        tasks.spawn("the check of the disk", headroom.run(stop.clone()));
    }
    info!(pool = options.pool, node = options.node, "ready");

    let mut planned = PlanApplier::new(Arc::clone(&context), Arc::clone(&datasets), Arc::clone(&loads));
    let mut sent = SentReports::default();
    let mut interval = tokio::time::interval(REPORT_INTERVAL);
    let mut reported_at = Instant::now();
    let result = loop {
        tokio::select! {
            _ = terminate.recv() => break Ok(()),
            Some(event) = events.recv() => {
                if matches!(event, millpond_cluster::PlanEvent::Connected(_)) {
                    sent.clear();
                }
                planned.apply(event).await;
            }
            uid = planned.removed() => planned.finish_removal(uid).await,
            () = context.news.notified() => interval.reset_at(reported_at + NEWS_DEBOUNCE),
            _ = interval.tick() => {
                reported_at = Instant::now();
                if let Some(reports) = planned.reports() {
                    let states = dataset_states(&datasets, planned.problems());
                    let tier = plan::TierState {
                        withheld_bytes: u64::try_from(withheld.get()).unwrap_or(0),
                    };
                    sent.send(reports, tier, states, loads.states());
                }
            }
            exit = tasks.next_exit() => break Err(exit.into()),
        }
    };
    info!("shutting down");
    stop.cancel();
    let rest = async {
        planned.stop().await;
        requests.close();
        requests.wait().await;
        tasks.join_all().await;
    };
    if tokio::time::timeout(SHUTDOWN_TIMEOUT, rest).await.is_err() {
        warn!(timeout = ?SHUTDOWN_TIMEOUT, "shutdown timed out; remaining tasks aborted");
    }
    result
}
