//! The Datasets that are shown on this node: begun at the first volume, ended some time after the last.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millpond_core::{Generation, TierDirectories};
use millpond_wire::plan::{DriverDataset, Eviction, Medium, Pool};
use parking_lot::Mutex;
use tokio::sync::{Mutex as Turn, watch};
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

/// How often it is looked who is not needed any more, beside the plan's changes.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// What the Datasets of a node need.
pub struct DatasetsOptions {
    /// Where things lie.
    pub layout: Layout,
    /// The node's name.
    pub node: String,
    /// What is to be.
    pub plan: Arc<PlanStore>,
    /// What the controller is told.
    pub reports: Arc<Reports>,
    /// Who keeps the FUSE mounts.
    pub keeper: Arc<Keeper>,
    /// Who makes the mounts that ask them.
    pub mounter: Mounter,
    /// Makes the lines to workers.
    pub workers: Arc<dyn Workers>,
    /// How long a Dataset stays after its last volume: a restarted pod comes back within it.
    pub patience: Duration,
    /// Whether kernel views are shown where they can be.
    pub kernel_views: bool,
}

/// See the module's documentation.
pub struct Datasets {
    options: DatasetsOptions,
    abilities: Result<(OverlayMode, Result<(), String>), String>,
    pools: Mutex<BTreeMap<String, watch::Sender<PoolOnNode>>>,
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
}

#[derive(Default)]
pub(crate) struct Slot {
    /// Held while the Dataset begins or ends.
    dataset: Turn<Option<Arc<Dataset>>>,
    /// The same for those who only look.
    shown: Mutex<Option<Arc<Dataset>>>,
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
    /// Finds out what this node's kernel can. Blocks for some milliseconds.
    pub fn new(options: DatasetsOptions) -> Arc<Self> {
        let abilities = abilities(&options);
        match &abilities {
            Ok((mode, Ok(()))) => info!(?mode, "shows kernel views"),
            Ok((mode, Err(reason))) => {
                warn!(
                    ?mode,
                    reason, "shows kernel views, except of Datasets that evict: opens cannot be counted"
                );
            }
            Err(reason) => warn!(reason, "shows FUSE views only"),
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

    /// Whether opens are counted in a kernel view of a Dataset; `None`: there can be no kernel view of it.
    pub(crate) fn kernel_view(&self, evicts: bool) -> Option<bool> {
        match &self.abilities {
            Ok((_, counting)) if counting.is_ok() || !evicts => Some(counting.is_ok()),
            _ => None,
        }
    }

    /// The Dataset, begun if need be, and in use until the answer's second part is dropped.
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
        let in_use = DatasetUseGuard(Arc::clone(&slot));
        let mut dataset = slot.dataset.lock().await;
        if let Some(dataset) = &*dataset {
            return Ok((Arc::clone(dataset), in_use));
        }
        let on_node = self.on_node(wanted);
        let surroundings = NodeContext {
            layout: &self.options.layout,
            keeper: Arc::clone(&self.options.keeper),
            mounter: self.options.mounter.clone(),
            workers: Arc::clone(&self.options.workers),
            mode: self.mode(),
        };
        let evicts = wanted.eviction() != Eviction::Never;
        let begun = Arc::new(Dataset::open(on_node, evicts, recorded, surroundings).await?);
        info!(
            dataset = wanted.uid,
            name = wanted.name,
            "begins to show a Dataset"
        );
        *dataset = Some(Arc::clone(&begun));
        *slot.shown.lock() = Some(Arc::clone(&begun));
        drop(dataset);
        // A keeper that started anew a moment ago was given only what was shown then.
        let fuse = Arc::clone(&begun.served.fuse);
        let given = tokio::task::spawn_blocking(move || fuse.reregister()).await;
        if let Ok(Err(error)) = given {
            warn!(%error, dataset = wanted.uid, "failed to give a mount to the keeper");
        }
        self.report_present();
        Ok((begun, in_use))
    }

    /// The Dataset, if it is shown here.
    pub(crate) fn shown(&self, uid: &str) -> Option<Arc<Dataset>> {
        self.slots.lock().get(uid)?.shown.lock().clone()
    }

    /// All Datasets that are shown here.
    pub(crate) fn all(&self) -> Vec<Arc<Dataset>> {
        let slots: Vec<_> = self.slots.lock().values().cloned().collect();
        slots
            .iter()
            .filter_map(|slot| slot.shown.lock().clone())
            .collect()
    }

    /// The metrics of all Datasets, each with its labels.
    pub fn metrics(&self) -> Vec<prometheus::Registry> {
        self.all().iter().map(|dataset| dataset.metrics.clone()).collect()
    }

    /// Counts all opens up to now.
    ///
    /// # Errors
    /// Where the process has no thread for it.
    pub async fn count_now(&self) -> Result<(), VolumeError> {
        for dataset in self.all() {
            dataset.served.registry.count_now().await?;
        }
        Ok(())
    }

    /// Gives all mounts to a keeper that has started anew. Blocks.
    pub fn give_again(&self) {
        for dataset in self.all() {
            if let Err(error) = dataset.served.fuse.reregister() {
                warn!(%error, dataset = dataset.on_node.uid, "failed to give a mount to the keeper");
            }
        }
    }

    /// Keeps members up to date and ends what is not needed, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut plan = self.options.plan.subscribe();
        let mut interval =
            tokio::time::interval(LOOK_INTERVAL.min(self.options.patience.max(Duration::from_millis(50))));
        // Since when it has had no volume.
        let mut idle: BTreeMap<String, tokio::time::Instant> = BTreeMap::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = interval.tick() => {}
                changed = plan.changed() => if changed.is_err() { return },
            }
            let now = Arc::clone(&plan.borrow_and_update());
            self.update_pools(&now);
            self.end_idle(&now, &mut idle).await;
            self.forget(&now);
        }
    }

    async fn end_idle(&self, plan: &Plan, idle: &mut BTreeMap<String, tokio::time::Instant>) {
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
            if !removed && since.elapsed() < self.options.patience {
                continue;
            }
            let mut dataset = slot.dataset.lock().await;
            // Somebody may have come meanwhile, who waits for the turn.
            if *slot.volumes.lock() > 0 {
                continue;
            }
            slot.shown.lock().take();
            if let Some(dataset) = dataset.take() {
                info!(dataset = uid, "nobody uses a Dataset any more");
                dataset.end(&self.options.layout).await;
            }
            drop(dataset);
            idle.remove(&uid);
            let mut slots = self.slots.lock();
            // Only while nobody else has it in hand: this list and this function.
            if slots.get(&uid).is_some_and(|slot| Arc::strong_count(slot) <= 2) {
                slots.remove(&uid);
            }
        }
    }

    /// Removes what is left on the disk of Datasets that are not in the plan any more and are not shown.
    fn forget(&self, plan: &Plan) {
        if !plan.synced {
            return;
        }
        let shown: BTreeSet<_> = self.slots.lock().keys().cloned().collect();
        for uid in self.on_disk() {
            if plan.datasets.contains_key(&uid) || shown.contains(&uid) {
                continue;
            }
            if let Err(error) = std::fs::remove_dir_all(self.options.layout.catalogs_of(&uid)) {
                warn!(%error, dataset = uid, "failed to remove a Dataset's catalogs");
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

    /// Takes away mounts of Datasets that no volume shows any more: of a driver that was killed between two steps.
    pub(crate) fn clean(&self, in_use: &BTreeSet<String>) {
        let entries = std::fs::read_dir(self.options.layout.datasets());
        for entry in entries.into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(uid) = name.to_str().filter(|uid| !in_use.contains(*uid)) else {
                continue;
            };
            clear(&entry.path());
            if let Err(error) = self.options.keeper.unregister(&fuse_name(uid)) {
                warn!(%error, dataset = uid, "failed to have the keeper let go of a mount");
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
            pool.send_if_modified(|known| {
                let changed = *known != new;
                *known = new;
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
        return Err("it was told not to show kernel views".to_owned());
    }
    let place = options.layout.driver();
    std::fs::create_dir_all(&place).map_err(|error| error.to_string())?;
    let found = KernelSupport::find(&place).map_err(|error| error.to_string())?;
    let mode = found.mode.map_err(|error| error.to_string())?;
    Ok((mode, found.counting.map_err(|error| error.to_string())))
}
