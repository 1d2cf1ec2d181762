//! One Dataset that is shown on this node: its FUSE mount, its views and the line to its worker.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use millpond_core::ObjectId;
use millpond_core::{Generation, ReleaseError, Views, Worker};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use super::error::VolumeError;
use super::layout::Layout;
use super::settling::NativeRemountWorker;
use super::workers::{DatasetOnNode, NodeWorker, Workers};
use millpond_fs::GenerationPin;
use millpond_fs::NeededGenerations;
use millpond_fs::ViewMetrics;
use millpond_fs::fuse::{FuseMetrics, FuseOptions, FuseServer, Layout as FuseLayout, Unmount};
use millpond_fs::keeper::KeeperClient as Keeper;
use millpond_fs::mount::{MountTable, detach};
use millpond_fs::mounter::Mounter;
use millpond_fs::view::{InUse, OverlayMode, Registry, RegistryOptions, RemountRules};

/// Backing ids of closed files that are kept for their next open: 15,000 cost 4 descriptors (measured).
const KEPT_BACKING_IDS: usize = 16_384;

/// Requests that a dead driver had read wait meanwhile; without a catalog they could only be answered wrongly.
const CATALOG_TIMEOUT: Duration = Duration::from_secs(10);

/// What a Dataset needs from its node.
pub(crate) struct NodeContext<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) mounter: Mounter,
    pub(crate) workers: Arc<dyn Workers>,
    pub(crate) mode: OverlayMode,
}

/// See the module's documentation.
pub(crate) struct Dataset {
    pub(crate) on_node: DatasetOnNode,
    /// Whether its objects may be given up for others.
    pub(crate) evicts: bool,
    pub(crate) registry: Registry,
    pub(crate) fuse: Arc<FuseServer>,
    pub(crate) worker: Arc<dyn NodeWorker>,
    pub(crate) metrics: prometheus::Registry,
    /// The generations that recorded volumes show, held from before the worker is first told what is in use.
    recorded: Mutex<BTreeMap<PathBuf, GenerationPin>>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Dataset {
    /// Takes over what a predecessor left, or begins anew. `recorded` are the generations of volumes from before.
    pub(crate) async fn open(
        on_node: DatasetOnNode,
        evicts: bool,
        recorded: BTreeMap<PathBuf, Generation>,
        surroundings: NodeContext<'_>,
    ) -> Result<Self, VolumeError> {
        let NodeContext {
            layout,
            keeper,
            mounter,
            workers,
            mode,
        } = surroundings;
        let metrics = metrics_of(&on_node)?;
        let registry = Registry::new(RegistryOptions {
            mode,
            settle: RemountRules::default(),
            metrics: ViewMetrics::register(&metrics).map_err(metrics_failed)?,
            mounter,
        })?;
        std::fs::create_dir_all(&on_node.directory)
            .map_err(VolumeError::system("make a directory for catalogs"))?;
        let holders = Arc::new(Holders {
            registry: registry.clone(),
            fuse: OnceLock::new(),
        });
        let worker = workers
            .worker(on_node.clone(), Arc::clone(&holders) as Arc<dyn Views>)
            .await;
        if !recorded.is_empty() {
            let mut catalogs = worker.catalogs();
            let first = tokio::time::timeout(CATALOG_TIMEOUT, catalogs.wait_for(Option::is_some)).await;
            if first.is_err() {
                warn!(dataset = %on_node.uid, "goes on without a catalog: open files cannot be read for now");
            }
        }
        let tasks = TaskTracker::new();
        let settling: Arc<dyn Worker> = Arc::new(NativeRemountWorker {
            worker: Arc::clone(&worker),
            registry: registry.clone(),
            runtime: tokio::runtime::Handle::current(),
            tasks: tasks.clone(),
        });
        let fuse_metrics = FuseMetrics::register(&metrics).map_err(metrics_failed)?;
        let options = |mountpoint: PathBuf| FuseOptions {
            mountpoint,
            name: fuse_name(&on_node.uid),
            layout: FuseLayout::Directories,
            worker: Arc::clone(&settling),
            runtime: tokio::runtime::Handle::current(),
            passthrough: true,
            kept_backing_ids: if evicts { 0 } else { KEPT_BACKING_IDS },
            threads: 2,
            metrics: fuse_metrics.clone(),
            ledger: Some(Arc::clone(registry.ledger())),
            keeper: Some(Arc::clone(&keeper)),
        };
        let point = layout.fuse(&on_node.uid);
        let (first, second) = (options(point.clone()), options(point.clone()));
        let mounted = tokio::task::spawn_blocking(move || take_over_or_mount(first, second, &point)).await;
        let fuse = mounted.map_err(|error| VolumeError::system("serve a Dataset")(error.into()))?;
        let fuse = match fuse {
            Ok(fuse) => Arc::new(fuse),
            Err(error) => {
                worker.close().await;
                registry.stop().await;
                return Err(error);
            }
        };
        // Set once, here.
        let _empty = holders.fuse.set(Arc::clone(&fuse));
        // Before the worker is told for the first time what is in use: all else it may delete.
        let needed = NeededGenerations::hold(Arc::clone(&fuse), registry.clone());
        let recorded = recorded.into_iter();
        let recorded = recorded.map(|(target, generation)| (target, registry.generations().pin(generation)));
        let recorded = Mutex::new(recorded.collect());
        registry.connect(settling);
        let stopping = CancellationToken::new();
        let stop = stopping.clone();
        tasks.spawn(async move {
            stop.run_until_cancelled(needed.run()).await;
        });
        Ok(Self {
            on_node,
            evicts,
            registry,
            fuse,
            worker,
            metrics,
            recorded,
            tasks,
            stopping,
        })
    }

    /// The volume at `target` is shown again or given up: a view holds what it needs.
    pub(crate) fn forget_recorded(&self, target: &Path) {
        self.recorded.lock().remove(target);
    }

    /// Takes the mount away: nobody uses the Dataset on this node any more.
    pub(crate) async fn end(&self, layout: &Layout) {
        for target in self.registry.targets() {
            if let Err(error) = self.registry.unmount(target, InUse::Detach).await {
                warn!(%error, "failed to take a view away");
            }
        }
        let fuse = Arc::clone(&self.fuse);
        let directory = layout.dataset(&self.on_node.uid);
        let unmount = move || {
            if let Err(error) = fuse.unmount(Unmount::Detach) {
                warn!(%error, "failed to unmount a Dataset");
            }
            clear(&directory);
        };
        if let Err(error) = tokio::task::spawn_blocking(unmount).await {
            error!(%error, "failed to unmount a Dataset");
        }
        self.stopping.cancel();
        self.registry.stop().await;
        self.worker.close().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Unmounts what is left of a Dataset, and removes its empty directories.
pub(crate) fn clear(directory: &std::path::Path) {
    let table = MountTable::read().unwrap_or_default();
    let left: Vec<_> = table
        .iter()
        .filter(|mount| mount.point.starts_with(directory))
        .collect();
    for mount in left.iter().rev() {
        if let Err(error) = detach(&mount.point) {
            warn!(%error, "failed to detach what was left of a Dataset");
        }
    }
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries {
        // Only what is empty: nothing is ever stored there.
        let _kept = std::fs::remove_dir(entry.path());
    }
    let _kept = std::fs::remove_dir(directory);
}

pub(crate) fn fuse_name(uid: &str) -> String {
    format!("millpond:{uid}")
}

fn take_over_or_mount(
    first: FuseOptions,
    second: FuseOptions,
    point: &std::path::Path,
) -> Result<FuseServer, VolumeError> {
    let table = MountTable::read().map_err(VolumeError::system("read the table of mounts"))?;
    if table.top_at(point).is_some() {
        if let Some(server) = FuseServer::take_over(first)? {
            return Ok(server);
        }
    } else if let Some(keeper) = &first.keeper {
        // Somebody has unmounted what is kept.
        keeper
            .unregister(&first.name)
            .map_err(millpond_fs::fuse::FuseError::from)?;
    }
    // A mount without a keeper is dead, and cannot be asked for anything.
    while MountTable::read()
        .map_err(VolumeError::system("read the table of mounts"))?
        .top_at(point)
        .is_some()
    {
        warn!(point = %point.display(), "nobody has kept a mount: it begins anew");
        detach(point).map_err(millpond_fs::view::ViewError::from)?;
    }
    std::fs::create_dir_all(point).map_err(VolumeError::system("make a directory for a mount"))?;
    Ok(FuseServer::mount(second)?)
}

/// Each Dataset has a registry of its own, whose metrics end with it.
fn metrics_of(on_node: &DatasetOnNode) -> Result<prometheus::Registry, VolumeError> {
    let labels = [
        ("dataset".to_owned(), on_node.name.clone()),
        ("namespace".to_owned(), on_node.namespace.clone()),
    ];
    prometheus::Registry::new_custom(None, Some(labels.into())).map_err(metrics_failed)
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err gives it")]
fn metrics_failed(error: prometheus::Error) -> VolumeError {
    VolumeError::Impossible {
        reason: format!("metrics cannot be counted: {error}"),
    }
}

/// All that holds objects of a Dataset, for the worker that evicts them.
struct Holders {
    registry: Registry,
    /// Empty until it is mounted.
    fuse: OnceLock<Arc<FuseServer>>,
}

#[async_trait]
impl Views for Holders {
    async fn release(&self, unlinked: &[ObjectId]) -> Result<(), ReleaseError> {
        // A backing id holds its file as an open one does.
        if let Some(fuse) = self.fuse.get() {
            fuse.release(unlinked);
        }
        self.registry.release(unlinked).await
    }
}
