//! Tasks of a driver's process, from start to exit.
//!
//! One driver serves a node at a time: the one that holds the lock. A new driver is started beside the old (an update by
//! surge), gets its certificate, and waits. The old one receives SIGTERM, hands its mounts over to the keeper and the
//! kernel, and its lock is released when its process exits: the new one takes over everything, also if the old one was
//! killed.
//!
//! A task that exits ends the process. The exit of the process unmounts nothing: neither views nor FUSE mounts.

use std::fs::{File, TryLockError};
use std::sync::Arc;
use std::time::Duration;

use millpond_cluster::{Bootstrap, CertificateManager, Controller, Follower, Identity};
use millpond_process::{TaskExit, Tasks, http};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tracing::{info, warn};

use crate::csi::wire::csi::identity_server::IdentityServer;
use crate::csi::wire::csi::node_server::NodeServer;
use crate::csi::wire::registration::registration_server::RegistrationServer;
use crate::csi::{IdentityService, NodeService, RegistrationService, SocketError, listen};
use crate::node::{
    Datasets, DatasetsOptions, Layout, PlanStore, PlanSync, Reports, Tiers, TiersOptions, Volumes, Workers,
};
use crate::options::DriverOptions;
use crate::service::Service;
use millpond_fs::keeper::KeeperConnection;
use millpond_fs::mounter::Mounter;

/// Interval of attempts to take the lock: a part of the delay that reads of uncached data see.
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

/// How long the start waits for the keeper: both start together only after a reboot, when there is nothing to take over.
const KEEPER_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Error that ends a driver.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A flag or the system prevented the start.
    #[error("failed to {action}")]
    Start {
        /// Attempted action.
        action: String,
        /// Cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A task that must live has exited.
    #[error(transparent)]
    Exited(#[from] TaskExit),
}

fn start<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    action: impl Into<String>,
) -> impl FnOnce(E) -> RunError {
    let action = action.into();
    move |source| RunError::Start {
        action,
        source: source.into(),
    }
}

/// Runs a driver until SIGTERM. The process must exit right after this returns, without destructors: they would wait for
/// reads that only the next driver can serve.
///
/// `workers` connects to workers, with the certificates received over time.
///
/// # Errors
/// If it cannot start, or a task has exited.
pub async fn run(
    options: DriverOptions,
    workers: impl FnOnce(watch::Receiver<Option<Arc<Identity>>>) -> Arc<dyn Workers>,
) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(start("handle signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(start("handle signals"))?;
    let mut tasks = Tasks::new();
    let stop = CancellationToken::new();
    let service = Service::new().map_err(start("register metrics"))?;
    let listener = http::listen(options.metrics_address).await;
    let listener = listener.map_err(start(
        "serve metrics: choose another address for --metrics-address",
    ))?;
    let serving = axum::serve(listener, http::router(service.clone())).into_future();
    tasks.spawn_fallible("the metrics service", serving);
    let controller = Controller::new(&options.controller).map_err(start("use --controller"))?;
    let membership = CertificateManager::new(Bootstrap {
        controller: controller.clone(),
        authorities: options.authorities.clone(),
        token: options.token.clone(),
    });
    let identity = membership.identity();
    tasks.spawn("the certificate renewal", membership.run(stop.clone()));
    let driver = Driver {
        layout: Layout::new(&options.kubelet_directory, &options.host_directory),
        workers: workers(identity.clone()),
        identity,
        controller,
        options,
        service,
        stop,
    };
    let mut serving = Box::pin(driver.serve(&mut tasks));
    let served = tokio::select! {
        served = &mut serving => served,
        _ = terminate.recv() => return leak(serving, Ok(())),
        _ = interrupt.recv() => return leak(serving, Ok(())),
    };
    drop(serving);
    let served = match served {
        Ok(served) => served,
        Err(error) => return leak(tasks, Err(error)),
    };
    let exit = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        exit = tasks.next_exit() => Some(exit),
    };
    // Views stay mounted, and the keeper has the FUSE descriptors.
    for dataset in served.datasets.all() {
        if let Err(error) = dataset.served.fuse.hand_over() {
            warn!(%error, "failed to hand a mount over to the keeper");
        }
    }
    let result = match exit {
        None => {
            info!("shut down; mounts left for the next driver");
            Ok(())
        }
        Some(exit) => Err(exit.into()),
    };
    leak((tasks, served), result)
}

/// Prevents the destructors of `what`: a dropped Dataset unmounts itself, which must not happen at the process's exit.
fn leak<T, R>(what: T, result: R) -> R {
    std::mem::forget(what);
    result
}

struct Driver {
    options: DriverOptions,
    layout: Layout,
    workers: Arc<dyn Workers>,
    identity: watch::Receiver<Option<Arc<Identity>>>,
    controller: Controller,
    service: Service,
    stop: CancellationToken,
}

/// State of a driver that serves.
struct Served {
    datasets: Arc<Datasets>,
    /// Released by the kernel when the process has exited, not before.
    _lock: File,
}

impl Driver {
    /// Waits until no other driver serves this node, takes over from it, and starts to serve.
    async fn serve(&self, tasks: &mut Tasks) -> Result<Served, RunError> {
        let lock = self.lock().await?;
        let connection = KeeperConnection::open(self.options.keeper_socket(), KEEPER_CONNECT_TIMEOUT).await;
        let plan = PlanStore::open(self.layout.plan());
        let reports = Arc::new(Reports::default());
        let datasets = DatasetsOptions {
            layout: self.layout.clone(),
            node: self.options.node.clone(),
            plan: Arc::clone(&plan),
            reports: Arc::clone(&reports),
            keeper: Arc::clone(connection.client()),
            mounter: Mounter::at(&self.options.mounter),
            workers: Arc::clone(&self.workers),
            idle_delay: self.options.idle_unmount_delay,
            kernel_views: !self.options.no_kernel_views,
        };
        let datasets = tokio::task::spawn_blocking(move || Datasets::new(datasets)).await;
        let datasets = datasets.map_err(start("detect the kernel's abilities"))?;
        // Leaked also if a later step fails: nothing is unmounted.
        std::mem::forget(Arc::clone(&datasets));
        let volumes = Volumes::open(
            Arc::clone(&datasets),
            Arc::clone(&reports),
            self.options.publish_timeout,
        );
        let volumes = volumes.map_err(start("read the records of volumes"))?;
        self.service.serve(Arc::clone(&datasets), Arc::clone(&volumes));
        volumes.adopt().await;

        let tiers = Tiers::new(TiersOptions {
            layout: self.layout.clone(),
            node: self.options.node.clone(),
            roots: self.options.tier_roots.clone(),
            owner: self.options.tier_owner,
        });
        let running = tiers.run(plan.subscribe(), Arc::clone(&datasets), self.stop.clone());
        tasks.spawn("the tiers", running);
        tasks.spawn("the Datasets", Arc::clone(&datasets).run(self.stop.clone()));
        tasks.spawn("the volumes", Arc::clone(&volumes).run(self.stop.clone()));
        let registered = Arc::clone(&datasets);
        let running = connection.run(move || registered.reregister(), self.stop.clone());
        tasks.spawn("the connection to the keeper", running);
        let (follower, events) = Follower::new(self.controller.clone(), self.identity.clone());
        tasks.spawn("the plan stream", follower.run(self.stop.clone()));
        let plan = PlanSync {
            store: plan,
            reports,
            events,
        };
        tasks.spawn("the plan", plan.run());
        self.serve_kubelet(&volumes, tasks)
            .map_err(start("serve the kubelet"))?;
        Ok(Served {
            datasets,
            _lock: lock,
        })
    }

    async fn lock(&self) -> Result<File, RunError> {
        let path = self.layout.lock();
        let action = || format!("lock {}", path.display());
        std::fs::create_dir_all(self.layout.driver()).map_err(start(action()))?;
        let lock = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&path);
        let lock = lock.map_err(start(action()))?;
        let mut is_logged = false;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::WouldBlock) => {
                    if !std::mem::replace(&mut is_logged, true) {
                        info!("driver lock held by another driver; standing by");
                    }
                    tokio::time::sleep(LOCK_INTERVAL).await;
                }
                Err(TryLockError::Error(error)) => return Err(start(action())(error)),
            }
        }
    }

    fn serve_kubelet(&self, volumes: &Arc<Volumes>, tasks: &mut Tasks) -> Result<(), SocketError> {
        let endpoint = self.layout.csi_socket();
        let listener = listen(&endpoint)?;
        let node = NodeService {
            node: self.options.node.clone(),
            volumes: Arc::clone(volumes),
        };
        let identity = IdentityService {
            volumes: Arc::clone(volumes),
        };
        let csi = Server::builder()
            .add_service(IdentityServer::new(identity))
            .add_service(NodeServer::new(node))
            .serve_with_incoming(UnixListenerStream::new(listener));
        tasks.spawn_fallible("the CSI services", csi);
        // Last: from here on the kubelet sends requests.
        let listener = listen(&self.layout.registration_socket())?;
        let registration = Server::builder()
            .add_service(RegistrationServer::new(RegistrationService { endpoint }))
            .serve_with_incoming(UnixListenerStream::new(listener));
        tasks.spawn_fallible("the registration", registration);
        Ok(())
    }
}
