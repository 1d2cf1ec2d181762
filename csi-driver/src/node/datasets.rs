//! Datasets in use on this node: opened at the first volume, closed some time after the last.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millpond_core::{Generation, TierDirectories};
use millpond_wire::plan::{DriverDataset, Eviction, Medium, Pool};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::dataset::{Dataset, NodeContext, clear, fuse_name};
use super::error::VolumeError;
use super::layout::Layout;
use super::plan::{Plan, PlanStore};
use super::reports::Reports;
use super::workers::{DatasetOnNode, MemberAddress, PoolOnNode, Workers};
use millpond_fs::keeper::KeeperClient as Keeper;
use millpond_fs::mounter::Mounter;
use millpond_fs::view::{KernelSupport, OverlayMode};

/// Interval of checks for idle Datasets, besides the plan's changes.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Options of [`Datasets::new`].
pub struct DatasetsOptions {
    /// Paths on the node.
    pub layout: Layout,
    /// Name of the node.
    pub node: String,
    /// Plan of the node.
    pub plan: Arc<PlanStore>,
    /// Reports to the controller.
    pub reports: Arc<Reports>,
    /// Client of the keeper.
    pub keeper: Arc<Keeper>,
    /// Client of the mounter.
    pub mounter: Mounter,
    /// Connects to workers.
    pub workers: Arc<dyn Workers>,
    /// How long a Dataset stays open after its last volume: long enough for a restarted pod.
    pub idle_delay: Duration,
    /// Whether kernel views are mounted where possible.
    pub kernel_views: bool,
}

/// Datasets in use on this node, by uid.
pub struct Datasets {
    options: DatasetsOptions,
    abilities: Result<(OverlayMode, Result<(), String>), String>,
    pools: Mutex<BTreeMap<String, watch::Sender<PoolOnNode>>>,
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
}

#[derive(Default)]
pub(crate) struct Slot {
    /// Locked while the Dataset is opened or closed.
    dataset: AsyncMutex<Option<Arc<Dataset>>>,
    /// The open Dataset, for readers that must not wait for that lock.
    open: Mutex<Option<Arc<Dataset>>>,
    volumes: Mutex<u64>,
}

/// A volume's use of a Dataset, until it is dropped.
pub(crate) struct DatasetUseGuard(Arc<Slot>);

impl Drop for DatasetUseGuard {
    fn drop(&mut self) {
        let mut volumes = self.0.volumes.lock();
        *volumes = volumes.saturating_sub(1);
    }
}

impl Datasets {
    /// Detects this node's kernel support. Blocks for some milliseconds.
    pub fn new(options: DatasetsOptions) -> Arc<Self> {
        let abilities = abilities(&options);
        match &abilities {
            Ok((mode, Ok(()))) => info!(?mode, "kernel views are supported"),
            Ok((mode, Err(reason))) => {
                warn!(
                    ?mode,
                    reason,
                    "opens cannot be counted; kernel views are used only for Datasets that never evict"
                );
            }
            Err(reason) => warn!(reason, "no kernel views; FUSE views are used"),
        }
        Arc::new(Self {
            options,
            abilities,
            pools: Mutex::default(),
            slots: Mutex::default(),
        })
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.options.layout
    }

    pub(crate) fn mounter(&self) -> &Mounter {
        &self.options.mounter
    }

    pub(crate) fn plan(&self) -> &PlanStore {
        &self.options.plan
    }

    /// Returns whether opens are counted in a kernel view of a Dataset; `None`: it can have no kernel view.
    pub(crate) fn kernel_view(&self, evicts: bool) -> Option<bool> {
        match &self.abilities {
            Ok((_, counting)) if counting.is_ok() || !evicts => Some(counting.is_ok()),
            _ => None,
        }
    }

    /// Returns the Dataset, opened if needed, and a guard that keeps it in use.
    pub(crate) async fn acquire(
        &self,
        wanted: &DriverDataset,
        recorded: BTreeMap<PathBuf, Generation>,
    ) -> Result<(Arc<Dataset>, DatasetUseGuard), VolumeError> {
        let slot = {
            let mut slots = self.slots.lock();
            Arc::clone(slots.entry(wanted.uid.clone()).or_default())
        };
        {
            let mut volumes = slot.volumes.lock();
            *volumes = volumes.saturating_add(1);
        }
        let use_guard = DatasetUseGuard(Arc::clone(&slot));
        let mut dataset = slot.dataset.lock().await;
        if let Some(dataset) = &*dataset {
            return Ok((Arc::clone(dataset), use_guard));
        }
        let on_node = self.on_node(wanted);
        let context = NodeContext {
            layout: &self.options.layout,
            keeper: Arc::clone(&self.options.keeper),
            mounter: self.options.mounter.clone(),
            workers: Arc::clone(&self.options.workers),
            mode: self.mode(),
        };
        let evicts = wanted.eviction() != Eviction::Never;
        let opened = Arc::new(Dataset::open(on_node, evicts, recorded, context).await?);
        info!(
            dataset = wanted.uid,
            name = wanted.name,
            "Dataset opened on this node"
        );
        *dataset = Some(Arc::clone(&opened));
        *slot.open.lock() = Some(Arc::clone(&opened));
        drop(dataset);
        // A keeper that restarted just before has received only the mounts of that time.
        let fuse = Arc::clone(&opened.served.fuse);
        let registered = tokio::task::spawn_blocking(move || fuse.reregister()).await;
        if let Ok(Err(error)) = registered {
            warn!(%error, dataset = wanted.uid, "failed to register a mount with the keeper; it will not survive a driver restart");
        }
        self.report_present();
        Ok((opened, use_guard))
    }

    /// Returns the Dataset, if it is open on this node.
    pub(crate) fn open_dataset(&self, uid: &str) -> Option<Arc<Dataset>> {
        self.slots.lock().get(uid)?.open.lock().clone()
    }

    /// Returns all Datasets that are open on this node.
    pub(crate) fn all(&self) -> Vec<Arc<Dataset>> {
        let slots: Vec<_> = self.slots.lock().values().cloned().collect();
        slots.iter().filter_map(|slot| slot.open.lock().clone()).collect()
    }

    /// Returns the metrics of all Datasets, each with its labels.
    pub fn metrics(&self) -> Vec<prometheus::Registry> {
        self.all().iter().map(|dataset| dataset.metrics.clone()).collect()
    }

    /// Counts all opens up to now.
    ///
    /// # Errors
    /// If the process cannot start a thread for it.
    pub async fn count_now(&self) -> Result<(), VolumeError> {
        for dataset in self.all() {
            dataset.served.registry.count_now().await?;
        }
        Ok(())
    }

    /// Registers all mounts with a restarted keeper. Blocks.
    pub fn reregister(&self) {
        for dataset in self.all() {
            if let Err(error) = dataset.served.fuse.reregister() {
                warn!(%error, dataset = dataset.on_node.uid, "failed to register a mount with the keeper; it will not survive a driver restart");
            }
        }
    }

    /// Updates pool members and closes idle Datasets, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut plan = self.options.plan.subscribe();
        let mut interval =
            tokio::time::interval(POLL_INTERVAL.min(self.options.idle_delay.max(Duration::from_millis(50))));
        // Since when each Dataset has had no volume.
        let mut idle: BTreeMap<String, tokio::time::Instant> = BTreeMap::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = interval.tick() => {}
                changed = plan.changed() => if changed.is_err() { return },
            }
            let now = Arc::clone(&plan.borrow_and_update());
            self.update_pools(&now);
            self.close_idle(&now, &mut idle).await;
            self.remove_unplanned(&now);
        }
    }

    async fn close_idle(&self, plan: &Plan, idle: &mut BTreeMap<String, tokio::time::Instant>) {
        let slots: Vec<_> = {
            let slots = self.slots.lock();
            slots
                .iter()
                .map(|(uid, slot)| (uid.clone(), Arc::clone(slot)))
                .collect()
        };
        for (uid, slot) in slots {
            if *slot.volumes.lock() > 0 {
                idle.remove(&uid);
                continue;
            }
            let since = *idle.entry(uid.clone()).or_insert_with(tokio::time::Instant::now);
            let removed = plan.synced && !plan.datasets.contains_key(&uid);
            if !removed && since.elapsed() < self.options.idle_delay {
                continue;
            }
            let mut dataset = slot.dataset.lock().await;
            // A volume may have been published meanwhile; its task waits for the lock.
            if *slot.volumes.lock() > 0 {
                continue;
            }
            slot.open.lock().take();
            if let Some(dataset) = dataset.take() {
                info!(dataset = uid, "Dataset idle; unmounting");
                dataset.end(&self.options.layout).await;
            }
            drop(dataset);
            idle.remove(&uid);
            let mut slots = self.slots.lock();
            // Only if no other task has a reference: two are this map's and this function's.
            if slots.get(&uid).is_some_and(|slot| Arc::strong_count(slot) <= 2) {
                slots.remove(&uid);
            }
        }
    }

    /// Removes files of Datasets that are neither in the plan nor open.
    fn remove_unplanned(&self, plan: &Plan) {
        if !plan.synced {
            return;
        }
        let open: BTreeSet<_> = self.slots.lock().keys().cloned().collect();
        for uid in self.on_disk() {
            if plan.datasets.contains_key(&uid) || open.contains(&uid) {
                continue;
            }
            if let Err(error) = std::fs::remove_dir_all(self.options.layout.catalogs_of(&uid)) {
                warn!(%error, dataset = uid, "failed to remove a deleted Dataset's catalogs; retried by the next check");
            }
        }
        self.report_present();
    }

    fn on_disk(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.options.layout.catalogs());
        let entries = entries.into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    fn report_present(&self) {
        let mut present = self.on_disk();
        present.extend(self.slots.lock().keys().cloned());
        self.options.reports.present(present);
    }

    /// Removes mounts of Datasets without a volume: leftovers of a driver that was killed between two steps.
    pub(crate) fn clean(&self, in_use: &BTreeSet<String>) {
        let entries = std::fs::read_dir(self.options.layout.datasets());
        for entry in entries.into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(uid) = name.to_str().filter(|uid| !in_use.contains(*uid)) else {
                continue;
            };
            clear(&entry.path());
            if let Err(error) = self.options.keeper.unregister(&fuse_name(uid)) {
                warn!(%error, dataset = uid, "failed to unregister a stale mount");
            }
        }
    }

    fn mode(&self) -> OverlayMode {
        self.abilities
            .as_ref()
            .map_or(OverlayMode::Descriptors, |(mode, _)| *mode)
    }

    fn on_node(&self, wanted: &DriverDataset) -> DatasetOnNode {
        let plan = self.options.plan.now();
        self.update_pools(&plan);
        let pool = plan.pools.get(&wanted.pool);
        let is_member =
            pool.is_some_and(|pool| pool.members.iter().any(|member| member.node == self.options.node));
        let layout = &self.options.layout;
        let members = {
            let mut pools = self.pools.lock();
            pools.entry(wanted.pool.clone()).or_default().subscribe()
        };
        DatasetOnNode {
            uid: wanted.uid.clone(),
            namespace: wanted.namespace.clone(),
            name: wanted.name.clone(),
            pool: wanted.pool.clone(),
            tiers: pool
                .filter(|_| is_member)
                .map(|pool| tiers(layout, pool, &wanted.uid))
                .unwrap_or_default(),
            socket: is_member.then(|| layout.worker(&wanted.pool).join("worker.sock")),
            members,
            directory: layout.catalogs_of(&wanted.uid),
        }
    }

    fn update_pools(&self, plan: &Plan) {
        let mut pools = self.pools.lock();
        for name in plan.pools.keys() {
            pools.entry(name.clone()).or_default();
        }
        pools.retain(|name, pool| {
            let planned = plan.pools.get(name);
            let members = planned
                .map(|planned| planned.members.as_slice())
                .unwrap_or_default();
            let members = members.iter().map(|member| MemberAddress {
                node: member.node.clone(),
                address: member.address.clone(),
            });
            let new = PoolOnNode {
                members: members.collect(),
            };
            pool.send_if_modified(|current| {
                let changed = *current != new;
                *current = new;
                changed
            });
            planned.is_some() || pool.receiver_count() > 0
        });
    }
}

/// A Dataset's directories in the tiers of a pool, fastest first.
fn tiers(layout: &Layout, pool: &Pool, uid: &str) -> Vec<TierDirectories> {
    let mut tiers: Vec<_> = pool.tiers.iter().collect();
    tiers.sort_by_key(|tier| tier.medium() != Medium::Memory);
    let directories = tiers.into_iter().map(|tier| {
        let tier = match tier.medium() {
            Medium::Memory => layout.memory(&pool.name),
            Medium::Disk => std::path::Path::new(&tier.path).join(&pool.name),
        };
        TierDirectories {
            objects: tier.join(uid).join("objects"),
            landing: tier.join(uid).join("landing"),
        }
    });
    directories.collect()
}

fn abilities(options: &DatasetsOptions) -> Result<(OverlayMode, Result<(), String>), String> {
    if !options.kernel_views {
        return Err("kernel views are disabled by --no-kernel-views".to_owned());
    }
    let directory = options.layout.driver();
    std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    let found = KernelSupport::probe(&directory).map_err(|error| error.to_string())?;
    let mode = found.mode.map_err(|error| error.to_string())?;
    Ok((mode, found.counting.map_err(|error| error.to_string())))
}
