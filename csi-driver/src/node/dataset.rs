//! One Dataset on this node: its FUSE mount, its views and the connection to its worker.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use millpond_core::{Generation, Worker};
use millpond_fs::fuse::FuseMetrics;
use millpond_fs::keeper::KeeperClient;
use millpond_fs::mount::{MountTable, detach};
use millpond_fs::mounter::Mounter;
use millpond_fs::view::{OverlayMode, RegistryOptions, RemountRules};
use millpond_fs::{DatasetViews, GenerationPin, Mountpoint, ServeOptions, ServedDataset, ViewMetrics};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use super::error::VolumeError;
use super::layout::Layout;
use super::workers::{DatasetOnNode, NodeWorker, Workers};

/// How long a takeover waits for the first catalog. Requests that a dead driver had read wait with it: without a catalog
/// they would fail.
const CATALOG_TIMEOUT: Duration = Duration::from_secs(10);

/// What a Dataset needs from its node.
pub(crate) struct NodeContext<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) keeper: Arc<KeeperClient>,
    pub(crate) mounter: Mounter,
    pub(crate) workers: Arc<dyn Workers>,
    pub(crate) mode: OverlayMode,
}

/// See the module's documentation.
pub(crate) struct Dataset {
    pub(crate) on_node: DatasetOnNode,
    /// Whether its objects may be evicted.
    pub(crate) evicts: bool,
    pub(crate) served: ServedDataset,
    pub(crate) worker: Arc<dyn NodeWorker>,
    pub(crate) metrics: prometheus::Registry,
    /// The pins of recorded volumes' generations, from before the first report to the worker.
    recorded: Mutex<BTreeMap<PathBuf, GenerationPin>>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Dataset {
    /// Takes over what a predecessor left, or starts without. `recorded` are the generations of a predecessor's volumes.
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
        let views = DatasetViews::new(RegistryOptions {
            mode,
            remount: RemountRules::default(),
            metrics: ViewMetrics::register(&metrics).map_err(metrics_failed)?,
            mounter,
        })?;
        std::fs::create_dir_all(&on_node.directory)
            .map_err(VolumeError::system("make a directory for catalogs"))?;
        let fuse_metrics = FuseMetrics::register(&metrics).map_err(metrics_failed)?;
        let pins = recorded.into_iter().map(|(target, generation)| {
            let pin = views.registry().generations().pin(generation);
            (target, pin)
        });
        let recorded: BTreeMap<_, _> = pins.collect();
        let worker = workers.worker(on_node.clone(), Arc::new(views.clone())).await;
        if !recorded.is_empty() {
            let mut catalogs = worker.catalogs();
            let first = tokio::time::timeout(CATALOG_TIMEOUT, catalogs.wait_for(Option::is_some)).await;
            if first.is_err() {
                warn!(
                    dataset = %on_node.uid,
                    timeout = ?CATALOG_TIMEOUT,
                    "no catalog after the takeover; reads of open files fail until one arrives"
                );
            }
        }
        let options = ServeOptions {
            mountpoint: Mountpoint::Private(layout.fuse(&on_node.uid)),
            name: fuse_name(&on_node.uid),
            evicts,
            kernel_views: true,
            metrics: fuse_metrics,
            keeper,
        };
        let served = ServedDataset::open(&views, Arc::clone(&worker) as Arc<dyn Worker>, options).await;
        let (served, needed) = match served {
            Ok(served) => served,
            Err(error) => {
                worker.close().await;
                return Err(error.into());
            }
        };
        let (tasks, stopping) = (TaskTracker::new(), CancellationToken::new());
        let stop = stopping.clone();
        tasks.spawn(async move {
            stop.run_until_cancelled(needed.run()).await;
        });
        Ok(Self {
            on_node,
            evicts,
            served,
            worker,
            metrics,
            recorded: Mutex::new(recorded),
            tasks,
            stopping,
        })
    }

    /// The volume at `target` is shown again or given up: a view holds what it needs.
    pub(crate) fn forget_recorded(&self, target: &Path) {
        self.recorded.lock().remove(target);
    }

    /// Unmounts the Dataset: no volume of this node uses it any more.
    pub(crate) async fn end(&self, layout: &Layout) {
        if let Err(error) = self.served.unmount().await {
            warn!(%error, "failed to unmount a Dataset");
        }
        let directory = layout.dataset(&self.on_node.uid);
        if let Err(error) = tokio::task::spawn_blocking(move || clear(&directory)).await {
            error!(%error, "failed to remove the directories of a Dataset");
        }
        self.stopping.cancel();
        self.served.registry.stop().await;
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
