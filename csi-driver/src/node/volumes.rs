//! The volumes of pods: shown, taken away, found again.
//!
//! Every change goes to its end in a task of its own, whatever becomes of the call that asked for it. Changes of one target come one
//! after the other; those of different targets at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millpond_core::Generation;
use millpond_wire::plan::DriverDataset;
use parking_lot::Mutex;
use tokio::sync::Mutex as Turn;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::dataset::Dataset;
use super::datasets::{DatasetUseGuard, Datasets};
use super::error::VolumeError;
use super::record::{DatasetSelector, Kind, Record, RecordedDataset, Records, VolumeRequest};
use super::reports::Reports;
use super::request::{Publish, allow, checked_id, request};
use super::target::Target;
use super::view_setup::{ViewOf, is_mounted, kept, missing_layer, show, uncover, view_of};
use millpond_fs::GenerationPin;
use millpond_fs::mount::MountTable;
use millpond_fs::pin_newest;
use millpond_fs::view::{InUse, ViewError};

/// What is looked at again and again while it is not there yet.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How often it is tried to take over what could not be at the start.
const ADOPT_INTERVAL: Duration = Duration::from_secs(10);

/// A plan that is whole and lacks the Dataset may be some moments old.
const UNKNOWN_DATASET_TIMEOUT: Duration = Duration::from_secs(10);

/// The size of a view is answered from memory, by the kernel or by this process.
const STATFS_TIMEOUT: Duration = Duration::from_secs(5);

/// What is wrong with a volume that a driver before has shown and this one could not take over.
const NOT_SERVED: &str = "the volume was shown before and is not served now";

/// How a volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeStats {
    /// The Dataset's size.
    pub bytes: u64,
    /// Its files and directories.
    pub files: u64,
    /// What is wrong; `None`: nothing.
    pub abnormal: Option<String>,
}

impl VolumeStats {
    /// Of a volume that does not show how large it is, for this reason.
    fn unknown(reason: impl Into<String>) -> Self {
        Self {
            bytes: 0,
            files: 0,
            abnormal: Some(reason.into()),
        }
    }
}

/// See the module's documentation.
pub struct Volumes {
    datasets: Arc<Datasets>,
    reports: Arc<Reports>,
    records: Records,
    /// How long a pod waits for what is missing.
    timeout: Duration,
    known: Mutex<BTreeMap<PathBuf, Volume>>,
    turns: Mutex<BTreeMap<PathBuf, Arc<Turn<()>>>>,
    tasks: TaskTracker,
    ready: AtomicBool,
}

struct Volume {
    record: Record,
    /// `None`: it was shown by a driver before, and is not now.
    in_use: Option<DatasetUseGuard>,
}

impl Volumes {
    /// Reads what is written down; [`Self::adopt`] must follow. `patience` is how long a call may wait for what is missing.
    ///
    /// # Errors
    /// The node's disk cannot be read.
    pub fn open(datasets: Arc<Datasets>, reports: Arc<Reports>, patience: Duration) -> io::Result<Arc<Self>> {
        let (records, found) = Records::open(datasets.layout().volumes())?;
        let mut known = BTreeMap::new();
        for (target, record) in found {
            let pods = Target::parse("target", &target.to_string_lossy(), datasets.layout());
            // The pod's directory went with the pod.
            if pods.is_ok_and(|pods| pods.has_parent()) {
                known.insert(target, Volume { record, in_use: None });
            } else {
                records.remove(&target)?;
            }
        }
        Ok(Arc::new(Self {
            datasets,
            reports,
            records,
            timeout: patience,
            known: Mutex::new(known),
            turns: Mutex::default(),
            tasks: TaskTracker::new(),
            ready: AtomicBool::new(false),
        }))
    }

    /// Whether what a driver before has shown is in this one's hands.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Takes over the volumes that are shown. What a reboot took away waits for the kubelet to ask for it again.
    pub async fn adopt(self: &Arc<Self>) {
        let table = MountTable::read().unwrap_or_default();
        let records: Vec<Record> = {
            let known = self.known.lock();
            let shown = known
                .values()
                .filter(|volume| table.top_at(&volume.record.target).is_some());
            shown.map(|volume| volume.record.clone()).collect()
        };
        let in_use: BTreeSet<_> = records.iter().map(|record| record.dataset.uid.clone()).collect();
        self.datasets.clean(&in_use);
        for record in records {
            let target = record.target.clone();
            match self.adopt_one(record.clone()).await {
                Ok(()) => info!(target = %target.display(), "took a volume over"),
                Err(error) => {
                    warn!(target = %target.display(), error = error.describe(), "failed to take a volume over");
                    self.reports.shown(&record);
                    self.reports.record_health(&record.key(), Some(NOT_SERVED));
                }
            }
        }
        self.ready.store(true, Ordering::Release);
    }

    /// Tries again what [`Self::adopt`] could not take over, until `stop`.
    pub async fn tend(self: Arc<Self>, stop: CancellationToken) {
        while stop
            .run_until_cancelled(tokio::time::sleep(ADOPT_INTERVAL))
            .await
            .is_some()
        {
            let waiting: Vec<_> = {
                let known = self.known.lock();
                let waiting = known.iter().filter(|(_, volume)| volume.in_use.is_none());
                waiting.map(|(target, _)| target.clone()).collect()
            };
            for target in waiting {
                let turn = self.target_lock(&target);
                let _mine = turn.lock().await;
                let Some((record, false)) = self.before(&target) else {
                    continue;
                };
                if !is_mounted(&target).unwrap_or(false) {
                    continue;
                }
                match self.adopt_one(record).await {
                    Ok(()) => info!(target = %target.display(), "took a volume over"),
                    Err(error) => debug!(error = error.describe(), "failed again to take a volume over"),
                }
            }
        }
    }

    async fn adopt_one(&self, record: Record) -> Result<(), VolumeError> {
        let wanted = self.dataset_of(&record);
        let (dataset, in_use) = self.datasets.acquire(&wanted, self.recorded(&wanted.uid)).await?;
        let fuse_root = dataset.served.fuse.mountpoint().to_owned();
        let target = record.target.clone();
        let generation = record.kind.generation();
        let adopted = match view_of(&record, &dataset, self.datasets.layout()) {
            ViewOf::Kernel(spec) => dataset.served.registry.adopt(spec).await?,
            ViewOf::Tree(spec) => {
                dataset
                    .served
                    .registry
                    .adopt_bind(spec, fuse_root, generation)
                    .await?
            }
        };
        if !adopted {
            return Ok(());
        }
        dataset.forget_recorded(&target);
        self.insert(record, in_use);
        Ok(())
    }

    /// Shows a volume. Asked for the same again, it is a success.
    ///
    /// # Errors
    /// Says what is missing or not allowed.
    ///
    /// # Cancel safety
    /// A call that is dropped goes on to its end.
    pub async fn publish(self: &Arc<Self>, publish: Publish) -> Result<(), VolumeError> {
        let target = Target::parse("target_path", &publish.target_path, self.datasets.layout())?;
        let request = request(publish)?;
        let volumes = Arc::clone(self);
        let task = self
            .tasks
            .spawn(async move { volumes.publish_at(target, request).await });
        task.await
            .unwrap_or_else(|error| Err(VolumeError::system("show a volume")(error.into())))
    }

    /// Takes a volume away. One that is gone is a success.
    ///
    /// # Errors
    /// What the system refused.
    ///
    /// # Cancel safety
    /// As [`Self::publish`].
    pub async fn unpublish(self: &Arc<Self>, volume_id: &str, target_path: &str) -> Result<(), VolumeError> {
        let volume_id = checked_id(volume_id)?;
        let target = Target::parse("target_path", target_path, self.datasets.layout())?;
        let volumes = Arc::clone(self);
        let task = self
            .tasks
            .spawn(async move { volumes.unpublish_at(&target, &volume_id).await });
        task.await
            .unwrap_or_else(|error| Err(VolumeError::system("take a volume away")(error.into())))
    }

    /// How a volume is.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`] where it is not on this node.
    pub async fn stats(&self, volume_id: &str, path: &str) -> Result<VolumeStats, VolumeError> {
        let volume = checked_id(volume_id)?;
        if path.is_empty() {
            return Err(VolumeError::invalid("volume_path", "is missing"));
        }
        let not_found = || VolumeError::NotFound {
            volume: volume.clone(),
            path: path.into(),
        };
        let target =
            Target::parse("volume_path", path, self.datasets.layout()).map_err(|_elsewhere| not_found())?;
        let (key, uid, is_served) = {
            let known = self.known.lock();
            let known = known.get(target.path());
            let known = known.filter(|known| known.record.request.volume_id == volume);
            let Volume { record, in_use } = known.ok_or_else(not_found)?;
            (record.key(), record.dataset.uid.clone(), in_use.is_some())
        };
        let stats = if is_served {
            let dataset = self.datasets.shown(&uid).ok_or_else(not_found)?;
            self.check_health(target, &dataset).await
        } else {
            VolumeStats::unknown(NOT_SERVED)
        };
        self.reports.record_health(&key, stats.abnormal.as_deref());
        Ok(stats)
    }

    /// How a volume is that this driver serves.
    async fn check_health(&self, target: Target, dataset: &Dataset) -> VolumeStats {
        let mounted = MountTable::read().is_ok_and(|table| table.top_at(target.path()).is_some());
        if !mounted {
            return VolumeStats::unknown(
                "the volume is not mounted any more: delete the pod, so that it is mounted anew",
            );
        }
        let unreachable = dataset.worker.reachable().err();
        let mounter = self.datasets.mounter().clone();
        let stat = tokio::task::spawn_blocking(move || mounter.size(target.path()));
        let reason = match tokio::time::timeout(STATFS_TIMEOUT, stat).await {
            Ok(Ok(Ok(found))) => {
                return VolumeStats {
                    bytes: found.bytes,
                    files: found.files,
                    abnormal: unreachable,
                };
            }
            Ok(Ok(Err(error))) => {
                let error = VolumeError::from(ViewError::from(error)).describe();
                format!("the volume does not answer: {error}")
            }
            Ok(Err(_)) | Err(_) => "the volume does not answer".to_owned(),
        };
        VolumeStats::unknown(unreachable.unwrap_or(reason))
    }

    async fn publish_at(&self, target: Target, request: VolumeRequest) -> Result<(), VolumeError> {
        let turn = self.target_lock(target.path());
        let _mine = turn.lock().await;
        let before = self.before(target.path());
        if let Some((record, true)) = &before {
            if record.request != request {
                return Err(VolumeError::Exists {
                    target: target.path().to_owned(),
                });
            }
            if is_mounted(target.path())? {
                return Ok(());
            }
            warn!(target = %target.path().display(), "somebody has unmounted a volume: it is shown again");
            self.hide(target.path(), &record.dataset.uid).await?;
        }
        let deadline = Instant::now() + self.timeout;
        // What a reboot, or a driver that was killed, left of the same volume.
        let before = before
            .map(|(record, _)| record)
            .filter(|record| record.request == request);
        let wanted = self.wait_for_dataset(&request.wanted, deadline).await?;
        allow(&wanted, &request)?;
        let (dataset, in_use) = self.datasets.acquire(&wanted, self.recorded(&wanted.uid)).await?;
        self.wait_for_catalog(&dataset, deadline).await?;
        let (kind, _held) = self.choose(&wanted, &dataset, before.as_ref())?;
        if request.context.is_some() && !matches!(kind, Kind::Kernel { .. }) {
            return Err(VolumeError::Impossible {
                reason: "an SELinux context can only be given to a volume that this node shows by a kernel view: set \
                         `view: Snapshot` on the Dataset, or leave seLinuxOptions out of the pod"
                    .to_owned(),
            });
        }
        self.wait_for_layers(&dataset, &kind, deadline).await?;
        uncover(target.path())?;
        target
            .create()
            .map_err(VolumeError::system("make the directory of a volume"))?;
        let recorded = RecordedDataset {
            uid: wanted.uid.clone(),
            namespace: wanted.namespace.clone(),
            name: wanted.name.clone(),
            pool: wanted.pool.clone(),
        };
        let record = Record::new(target.path().to_owned(), request, recorded, kind);
        let put = self.records.put(&record);
        put.map_err(VolumeError::system("write down a volume"))?;
        if let Err(error) = show(&record, &dataset, self.datasets.layout()).await {
            // A predecessor's record stays: it says which generation the pod has to see.
            if before.is_none() {
                self.records
                    .remove(target.path())
                    .map_err(VolumeError::system("forget a volume"))?;
            }
            let _kept = target.remove();
            return Err(error.into());
        }
        dataset.forget_recorded(target.path());
        info!(
            target = %target.path().display(), dataset = wanted.uid, generation = record.generation(),
            kernel = record.is_kernel(), "shows a volume"
        );
        self.insert(record, in_use);
        Ok(())
    }

    async fn unpublish_at(&self, target: &Target, volume_id: &str) -> Result<(), VolumeError> {
        let turn = self.target_lock(target.path());
        {
            let _mine = turn.lock().await;
            let before = self.before(target.path());
            if let Some((record, _)) = &before {
                if record.request.volume_id != volume_id {
                    return Err(VolumeError::Exists {
                        target: target.path().to_owned(),
                    });
                }
                self.hide(target.path(), &record.dataset.uid).await?;
            }
            uncover(target.path())?;
            target
                .remove()
                .map_err(VolumeError::system("remove the directory of a volume"))?;
            self.records
                .remove(target.path())
                .map_err(VolumeError::system("forget a volume"))?;
            if let Some((record, _)) = before {
                self.known.lock().remove(target.path());
                self.reports.gone(&record.key());
                info!(target = %target.path().display(), "a volume is gone");
            }
        }
        let mut turns = self.turns.lock();
        // This list's and this call's: nobody waits.
        if Arc::strong_count(&turn) <= 2 {
            turns.remove(target.path());
        }
        Ok(())
    }

    /// Takes the view away, if it is in this driver's hands.
    async fn hide(&self, target: &Path, uid: &str) -> Result<(), VolumeError> {
        let Some(dataset) = self.datasets.shown(uid) else {
            return Ok(());
        };
        match dataset
            .served
            .registry
            .unmount(target.to_owned(), InUse::Detach)
            .await
        {
            Ok(()) | Err(ViewError::Missing { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        dataset.forget_recorded(target);
        if let Some(volume) = self.known.lock().get_mut(target) {
            volume.in_use = None;
        }
        Ok(())
    }

    fn target_lock(&self, target: &Path) -> Arc<Turn<()>> {
        Arc::clone(self.turns.lock().entry(target.to_owned()).or_default())
    }

    /// What is known of the target, and whether this driver shows it.
    fn before(&self, target: &Path) -> Option<(Record, bool)> {
        let known = self.known.lock();
        let volume = known.get(target)?;
        Some((volume.record.clone(), volume.in_use.is_some()))
    }

    fn insert(&self, record: Record, in_use: DatasetUseGuard) {
        self.reports.shown(&record);
        let volume = Volume {
            record: record.clone(),
            in_use: Some(in_use),
        };
        self.known.lock().insert(record.target, volume);
    }

    /// The generations that volumes of a Dataset are to show again.
    fn recorded(&self, uid: &str) -> BTreeMap<PathBuf, Generation> {
        let known = self.known.lock();
        let of_dataset = known.values().filter(|volume| volume.record.dataset.uid == uid);
        of_dataset
            .filter_map(|volume| Some((volume.record.target.clone(), volume.record.kind.generation()?)))
            .collect()
    }

    /// The Dataset of a volume that is shown, which may have left the plan since.
    fn dataset_of(&self, record: &Record) -> DriverDataset {
        let plan = self.datasets.plan().now();
        let planned = plan.datasets.get(&record.dataset.uid).cloned();
        planned.unwrap_or_else(|| DriverDataset {
            uid: record.dataset.uid.clone(),
            namespace: record.dataset.namespace.clone(),
            name: record.dataset.name.clone(),
            pool: record.dataset.pool.clone(),
            ..DriverDataset::default()
        })
    }

    async fn wait_for_dataset(
        &self,
        wanted: &DatasetSelector,
        deadline: Instant,
    ) -> Result<DriverDataset, VolumeError> {
        let mut plan = self.datasets.plan().subscribe();
        let unknown = deadline.min(Instant::now() + UNKNOWN_DATASET_TIMEOUT);
        loop {
            let (found, known) = {
                let plan = plan.borrow_and_update();
                let found = match wanted {
                    DatasetSelector::Uid { uid, .. } => plan.datasets.get(uid),
                    DatasetSelector::Name { namespace, name } => plan.named(namespace, name),
                };
                (found.cloned(), plan.synced)
            };
            if let Some(found) = found {
                return Ok(found);
            }
            let until = if known { unknown } else { deadline };
            let (namespace, name) = match wanted {
                DatasetSelector::Uid { namespace, name, .. } | DatasetSelector::Name { namespace, name } => {
                    (namespace, name)
                }
            };
            match tokio::time::timeout_at(until, plan.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => {
                    return Err(VolumeError::NotReady {
                        missing: if known {
                            format!(
                                "the Dataset {namespace}/{name} is not there: see `kubectl get dataset -n {namespace} {name}`"
                            )
                        } else {
                            "this node has no plan yet: is the millpond-controller running, and can the node reach it?"
                                .to_owned()
                        },
                    });
                }
            }
        }
    }

    async fn wait_for_catalog(&self, dataset: &Dataset, deadline: Instant) -> Result<(), VolumeError> {
        let mut catalogs = dataset.worker.catalogs();
        let there = async {
            // Its senders live as long as the Dataset.
            drop(catalogs.wait_for(Option::is_some).await);
            let mut shown = dataset.served.fuse.shown();
            drop(shown.wait_for(Option::is_some).await);
        };
        if tokio::time::timeout_at(deadline, there).await.is_ok() {
            return Ok(());
        }
        let on_node = &dataset.on_node;
        let (namespace, name) = (&on_node.namespace, &on_node.name);
        let missing = match dataset.worker.reachable() {
            Ok(()) => format!(
                "the Dataset {namespace}/{name} has no catalog yet: see `kubectl describe dataset -n {namespace} {name}`"
            ),
            Err(reason) => format!("no worker of the pool {} can be reached: {reason}", on_node.pool),
        };
        Err(VolumeError::NotReady { missing })
    }

    /// Decides what is shown: what was recorded, where its catalog is still there, else the newest.
    fn choose(
        &self,
        wanted: &DriverDataset,
        dataset: &Dataset,
        before: Option<&Record>,
    ) -> Result<(Kind, Option<GenerationPin>), VolumeError> {
        if wanted.live {
            return Ok((Kind::Live, None));
        }
        let no_catalog = || VolumeError::NotReady {
            missing: "the Dataset's catalog has just gone: try again".to_owned(),
        };
        let (catalog, held) = match before.and_then(|record| kept(record, dataset)) {
            Some(kept) => kept,
            None => {
                let (newest, held) =
                    pin_newest(dataset.worker.as_ref(), &dataset.served.registry).ok_or_else(no_catalog)?;
                ((*newest).clone(), held)
            }
        };
        let kind = match self.datasets.kernel_view(dataset.evicts) {
            Some(count_opens) => Kind::kernel(&catalog, &dataset.on_node.tiers, count_opens),
            None => Kind::Tree {
                generation: catalog.generation.0,
            },
        };
        Ok((kind, Some(held)))
    }

    /// A kernel view needs the worker's directories; a FUSE view needs the server to have opened the generation.
    async fn wait_for_layers(
        &self,
        dataset: &Dataset,
        kind: &Kind,
        deadline: Instant,
    ) -> Result<(), VolumeError> {
        match kind {
            Kind::Live => Ok(()),
            Kind::Tree { generation } => {
                let wanted = Some(Generation(*generation));
                let mut shown = dataset.served.fuse.shown();
                let there = shown.wait_for(|shown| *shown >= wanted);
                match tokio::time::timeout_at(deadline, there).await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(_)) | Err(_) => Err(VolumeError::NotReady {
                        missing: format!("the FUSE mount does not show generation {generation}"),
                    }),
                }
            }
            Kind::Kernel { .. } => loop {
                let Some(missing) = missing_layer(dataset) else {
                    return Ok(());
                };
                if Instant::now() >= deadline {
                    return Err(VolumeError::NotReady {
                        missing: format!(
                            "this node's worker of the pool {} has not made {}: see the pod of millpond-worker-{} on \
                             this node",
                            dataset.on_node.pool,
                            missing.display(),
                            dataset.on_node.pool
                        ),
                    });
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            },
        }
    }
}
