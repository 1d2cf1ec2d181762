//! The process that serves a mount: the worker's Dataset, the FUSE server and the view in one.
//!
//! It may be killed at any moment. What the next server must know is with the keeper, in the run directory and in the
//! cache directory.
//!
//! - SIGTERM: unmount everything and exit. SIGUSR1: hand everything over to the next server and exit.
//! - If its supervisor is killed it continues to serve, as an [`orphan`](super::orphan).
//! - It reports to the supervisor through its standard output; its standard input is the keeper's socket.
//! - Each of its tasks must live: where one exits, the process ends, and the supervisor starts another.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use millpond_cache::dataset::{Dataset, DatasetOptions, MountOptions};
use millpond_cache::metrics::WorkerMetrics;
use millpond_cache::source::Environment;
use millpond_cache::{Limit, MemoryTier};
use millpond_fs::fuse::{FuseError, FuseMetrics};
use millpond_fs::keeper::KeeperClient;
use millpond_fs::mounter::Mounter;
use millpond_fs::view::{RegistryOptions, RemountRules};
use millpond_fs::{DatasetViews, Mountpoint, ServeOptions, ServedDataset, ViewMetrics};
use millpond_process::{TaskExit, Tasks, http};
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::cleanup;
use super::control::{Control, MountStats};
use super::memory;
use super::mount_watch::MountChanges;
use super::orphan::SupervisorWatch;
use super::readiness::{self, EXIT_CONFIG, Ready, Report};
use super::run_directory::RunDirectory;
use super::service::{self, Service};
use super::spec::{Eviction, Spec, ViewKind};
use super::start::name_process;
use super::views::{self, MountedView, Record, ViewChoicePlan};

/// Minimum budget of the read path if no flag sets one.
const MIN_BUDGET_BYTES: u64 = 256 << 20;

/// Time for the Dataset's tasks to end after an unmount.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for the same before a hand-over, while readers wait for the next server, which repeats the fetches that are cut off.
const HANDOVER_TIMEOUT: Duration = Duration::from_millis(500);

/// Interval between reports of the listing's progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// The task whose exit means an unmount where the FUSE mount itself is the view.
const FUSE_SESSION: &str = "the FUSE session";

/// Serves the mount in `run_directory` until a signal or an error ends it.
pub(crate) fn run(run_directory: &Path, predecessors: u64) -> ExitCode {
    name_process();
    let code = match serve(run_directory, predecessors) {
        Ok(()) => 0,
        Err(Failure { is_permanent, error }) => {
            error!(error = format!("{error:#}"), "server failed; exiting");
            let reason = format!("{error:#}");
            // A supervisor that has exited needs no reason.
            let _exited = readiness::send(&Report::Failed { reason });
            if is_permanent { EXIT_CONFIG } else { 1 }
        }
    };
    // Without destructors: they would wait for reads that only the next server can answer.
    std::process::exit(i32::from(code))
}

struct Failure {
    /// Whether the next server would fail as well.
    is_permanent: bool,
    error: anyhow::Error,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self {
            is_permanent: false,
            error,
        }
    }
}

fn serve(run_directory: &Path, predecessors: u64) -> Result<(), Failure> {
    let permanent = |error| Failure {
        is_permanent: true,
        error,
    };
    let telemetry =
        millpond_process::telemetry::init(&millpond_process::telemetry::TelemetryOptions::default());
    telemetry.map_err(|error| permanent(error.into()))?;
    millpond_process::raise_file_limit();
    millpond_process::tls::install();
    let run_directory = RunDirectory::at(run_directory);
    let spec = Spec::read(&run_directory.spec()).map_err(permanent)?;
    let threads = std::thread::available_parallelism()
        .map_or(2, usize::from)
        .clamp(2, 8);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("millpond")
        .enable_all()
        .build()
        .context("failed to start the server's threads")?;
    let result = runtime.block_on(async {
        let mut server = Server::open(spec, run_directory, predecessors).await?;
        let end = server.run().await;
        server.end(end?).await
    });
    // Its threads may wait for requests that only the next server answers.
    runtime.shutdown_background();
    Ok(result?)
}

/// Why a server exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// The mount ends.
    Unmount,
    /// Another server takes over.
    HandOver,
}

struct Server {
    spec: Spec,
    run_directory: RunDirectory,
    supervision: SupervisorWatch,
    /// Set once the supervisor has exited.
    orphaned: Arc<AtomicBool>,
    /// Watches for unmounts, which is the supervisor's task as long as it lives.
    changes: Option<MountChanges>,
    dataset: Arc<Dataset>,
    served: ServedDataset,
    shown: MountedView,
    /// Those that must live.
    tasks: Tasks,
    signals: Signals,
    /// Held as long as this process lives.
    _lock: std::fs::File,
}

struct Signals {
    terminate: Signal,
    hand_over: Signal,
    /// A terminal sends these to all of its processes; the supervisor decides.
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let handle = |kind| signal(kind).context("failed to handle signals");
        Ok(Self {
            terminate: handle(SignalKind::terminate())?,
            hand_over: handle(SignalKind::user_defined1())?,
            interrupt: handle(SignalKind::interrupt())?,
            hangup: handle(SignalKind::hangup())?,
        })
    }
}

impl Server {
    /// Opens the Dataset, and mounts it.
    async fn open(spec: Spec, run_directory: RunDirectory, predecessors: u64) -> Result<Self> {
        let signals = Signals::new()?;
        let lock = run_directory.serve()?;
        let supervision = SupervisorWatch::of_stdin().context("failed to watch the supervisor")?;
        let keeper = Arc::new(KeeperClient::from_stdin().context("failed to reach the keeper")?);
        let metrics = service::registry(predecessors)?;
        let listener = match spec.metrics {
            Some(address) => {
                let listener = http::listen(address).await;
                Some(listener.context("failed to serve --metrics: choose another address")?)
            }
            None => None,
        };
        let record = Record::read(&run_directory)?;
        let mut choice = choose(&spec, &run_directory, record.as_ref()).await?;
        let views = DatasetViews::new(RegistryOptions {
            mode: choice.mode,
            remount: RemountRules::default(),
            metrics: ViewMetrics::register(&metrics)?,
            mounter: Mounter::at(run_directory.mounter()),
        })?;
        let recorded = record.as_ref().and_then(Record::generation);
        let recorded = recorded.map(|generation| views.registry().generations().pin(generation));
        let memory_tier = memory::tier(&spec, &run_directory)?;
        let options = dataset_options(&spec, memory_tier, record.is_none())?;
        let worker_metrics = WorkerMetrics::new(&metrics)?;
        let dataset = Dataset::open(options, Arc::new(views.clone()), &worker_metrics).await?;
        start_dataset(&dataset)
            .await
            .with_context(|| cannot_be_shown(&spec))?;

        let options = ServeOptions {
            mountpoint: if views::is_direct() {
                Mountpoint::User(spec.directory.clone())
            } else {
                Mountpoint::Private(run_directory.fuse())
            },
            name: run_directory.name(),
            evicts: spec.cache.eviction != Eviction::Never,
            kernel_views: choice.kind == ViewKind::Kernel,
            metrics: FuseMetrics::register(&metrics)?,
            keeper: Arc::clone(&keeper),
        };
        let (served, needed) = ServedDataset::open(&views, Arc::clone(&dataset) as _, options).await?;
        let shown = views::show(
            &spec,
            &run_directory,
            &mut choice,
            record,
            &served.registry,
            dataset.as_ref(),
        )
        .await;
        drop(recorded);
        let shown = match shown {
            Ok(shown) => shown,
            Err(error) => {
                if served.taken_over {
                    // The mount is the next server's to try.
                    served.fuse.hand_over()?;
                }
                return Err(error);
            }
        };
        let mut tasks = Tasks::new();
        tasks.spawn("the live tree", needed.run());
        let mut server = Self {
            spec,
            run_directory,
            supervision,
            orphaned: Arc::default(),
            changes: None,
            dataset,
            served,
            shown,
            tasks,
            signals,
            _lock: lock,
        };
        server.start_tasks(metrics, listener, predecessors)?;
        keeper.ready()?;
        server.report_ready(choice.notes);
        Ok(server)
    }

    fn start_tasks(
        &mut self,
        metrics: prometheus::Registry,
        listener: Option<tokio::net::TcpListener>,
        predecessors: u64,
    ) -> Result<()> {
        let control = Control::new(
            Arc::clone(&self.dataset),
            self.served.registry.clone(),
            Arc::clone(&self.served.fuse),
            MountStats {
                directory: self.spec.directory.clone(),
                view: self.shown.kind,
                generation: self.shown.generation.map(|generation| generation.0),
                predecessors,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                server_pid: std::process::id(),
                supervised: true,
                log: Some(self.run_directory.log()).filter(|log| log.exists()),
            },
            Arc::clone(&self.orphaned),
        );
        let socket = listen_at(&self.run_directory.control())?;
        let serving = axum::serve(socket, control.router()).into_future();
        self.tasks.spawn_fallible("the control socket", serving);
        if let Some(listener) = listener {
            let service = Service {
                dataset: Arc::clone(&self.dataset),
                views: self.served.registry.clone(),
                metrics,
            };
            let serving = axum::serve(listener, http::router(service)).into_future();
            self.tasks.spawn_fallible("the metrics service", serving);
        }
        let fuse = Arc::clone(&self.served.fuse);
        self.tasks.spawn(FUSE_SESSION, async move { fuse.wait().await });
        Ok(())
    }

    fn report_ready(&self, mut notes: Vec<String>) {
        let catalog = self.dataset.stats().catalog;
        if catalog.as_ref().is_some_and(|catalog| catalog.files == 0) {
            notes.push(format!(
                "there is nothing in {}: is its name right?",
                self.spec.source.url
            ));
        }
        for text in notes {
            let _exited = readiness::send(&Report::Note { text });
        }
        let ready = Ready {
            view: self.shown.kind,
            files: catalog.as_ref().map_or(0, |catalog| catalog.files),
            bytes: catalog.as_ref().map_or(0, |catalog| catalog.bytes),
        };
        info!(view = ready.view.label(), files = ready.files, "ready");
        let _exited = readiness::send(&Report::Ready(ready));
    }

    /// Serves until a signal, an unmount or the exit of a task.
    async fn run(&mut self) -> Result<Reason> {
        loop {
            tokio::select! {
                _ = self.signals.terminate.recv() => return Ok(Reason::Unmount),
                _ = self.signals.hand_over.recv() => return Ok(Reason::HandOver),
                _ = self.signals.interrupt.recv() => if self.is_orphan() {
                    return Ok(Reason::Unmount);
                },
                _ = self.signals.hangup.recv() => {}
                () = self.supervision.lost(), if !self.is_orphan() => self.serve_as_orphan()?,
                () = next_change(self.changes.as_ref()) => {
                    if cleanup::mounted_view(&self.run_directory, &self.spec.directory)?.is_none() {
                        info!("unmounted");
                        return Ok(Reason::Unmount);
                    }
                }
                exit = self.tasks.next_exit() => match exit {
                    TaskExit::Ended { task: FUSE_SESSION } if views::is_direct() => {
                        info!("unmounted");
                        return Ok(Reason::Unmount);
                    }
                    exit => return Err(exit.into()),
                },
            }
        }
    }

    fn serve_as_orphan(&mut self) -> Result<()> {
        error!(
            directory = %self.spec.directory.display(),
            "the supervisor was killed: this server serves on, but nothing starts another one; `millpond unmount` and \
             then `millpond mount` make it whole again"
        );
        self.changes = Some(MountChanges::watch().context("failed to watch the table of mounts")?);
        self.orphaned.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn is_orphan(&self) -> bool {
        self.orphaned.load(Ordering::Relaxed)
    }

    async fn end(self, reason: Reason) -> Result<()> {
        info!(?reason, "shutting down");
        let orphan = self.is_orphan();
        match reason {
            Reason::HandOver => {
                self.served.fuse.hand_over()?;
                let stop = async {
                    self.served.registry.stop().await;
                    self.dataset.stop().await;
                };
                if tokio::time::timeout(HANDOVER_TIMEOUT, stop).await.is_err() {
                    info!(timeout = ?HANDOVER_TIMEOUT, "hand-over timed out; remaining tasks aborted");
                }
            }
            Reason::Unmount => {
                match self.served.unmount().await {
                    // Its keeper has exited with the supervisor.
                    Err(FuseError::Keeper(_)) if orphan => {}
                    Err(error) => warn!(%error, "failed to unmount"),
                    Ok(()) => {}
                }
                let stop = async {
                    self.served.registry.stop().await;
                    self.dataset.stop().await;
                };
                if tokio::time::timeout(SHUTDOWN_TIMEOUT, stop).await.is_err() {
                    warn!(timeout = ?SHUTDOWN_TIMEOUT, "shutdown timed out; remaining tasks aborted");
                }
                // A `mount` that ends an orphan has locked the run directory, and needs it.
                if orphan && let Some(_lock) = self.run_directory.claim()? {
                    cleanup::remove(&self.run_directory)?;
                }
            }
        }
        Ok(())
    }
}

async fn next_change(changes: Option<&MountChanges>) {
    match changes {
        Some(changes) => changes.next().await,
        None => std::future::pending().await,
    }
}

/// Error of a source that cannot be listed, with what to check.
fn cannot_be_shown(spec: &Spec) -> String {
    let url = &spec.source.url;
    if url.starts_with("file:") {
        return format!("failed to show {url}: check the directory");
    }
    let at = spec.source.endpoint.as_ref();
    let at = at.map(|endpoint| format!(" at {endpoint}")).unwrap_or_default();
    format!(
        "failed to show {url}{at}: check the source's name, --endpoint, --region and the credentials (environment, \
         config files, or --anonymous)"
    )
}

async fn choose(
    spec: &Spec,
    run_directory: &RunDirectory,
    record: Option<&Record>,
) -> Result<ViewChoicePlan> {
    let (spec, run_directory, record) = (spec.clone(), run_directory.clone(), record.cloned());
    tokio::task::spawn_blocking(move || ViewChoicePlan::make(&spec, &run_directory, record.as_ref())).await?
}

fn dataset_options(spec: &Spec, memory_tier: Option<MemoryTier>, first: bool) -> Result<DatasetOptions> {
    let boot_id = millpond_process::boot_id().context("failed to read the kernel's boot id")?;
    let mount = MountOptions::at_root(spec.source.clone());
    let mut options = DatasetOptions::new(vec![mount], spec.cache.directory.clone(), boot_id);
    options.environment = Environment::of_process();
    options.disk_limit = Limit {
        bytes: spec.cache.disk_bytes,
        inodes: None,
    };
    options.memory_tier = memory_tier;
    options.eviction = match spec.cache.eviction {
        Eviction::Never => millpond_cache::Eviction::Never,
        Eviction::Lru => millpond_cache::Eviction::Lru,
        Eviction::TinyLfu => millpond_cache::Eviction::TinyLfu,
    };
    options.owner = millpond_catalog::Owner {
        uid: spec.owner.uid,
        gid: spec.owner.gid,
        file_mode: spec.owner.file_mode,
        dir_mode: spec.owner.dir_mode,
    };
    options.refresh_interval = spec.refresh;
    // A successor mounts the generation of its predecessor.
    options.fresh = spec.fresh && first;
    options.memory_bytes = spec.memory_budget_bytes.unwrap_or_else(|| {
        let limit = millpond_process::memory_limit_bytes().unwrap_or(0);
        (limit / 4).max(MIN_BUDGET_BYTES)
    });
    options.hedging = spec.hedging;
    options.origin.deadline = spec.deadline;
    options.listing.page_deadline = options.listing.page_deadline.min(spec.deadline);
    Ok(options)
}

/// Waits for the first catalog, and reports the progress of its listing.
async fn start_dataset(dataset: &Dataset) -> Result<()> {
    let listing = dataset.listing();
    let progress = async {
        let mut interval = tokio::time::interval(PROGRESS_INTERVAL);
        loop {
            interval.tick().await;
            let shown = *listing.borrow();
            if shown.running {
                let (objects, bytes) = (shown.objects, shown.bytes);
                // Only the first server of a mount has a waiting command.
                let _exited = readiness::send(&Report::Listing { objects, bytes });
            }
        }
    };
    tokio::select! {
        started = dataset.start() => Ok(started?),
        () = progress => Ok(()),
    }
}

fn listen_at(socket: &Path) -> Result<UnixListener> {
    let failed = || format!("failed to listen at {}", socket.display());
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).with_context(failed),
        // The predecessor's socket, or none.
        _ => {}
    }
    UnixListener::bind(socket).with_context(failed)
}
