//! Volumes of pods: published, unpublished, adopted by the next driver.
//!
//! Every change runs to its end in its own task, even if the request that started it is dropped. Changes of one target run
//! one after the other; those of different targets concurrently.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millpond_core::Generation;
use millpond_wire::plan::DriverDataset;
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;
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
use super::view_setup::{ViewOf, is_mounted, missing_layer, mount, recorded_catalog, unmount_stale, view_of};
use millpond_fs::GenerationPin;
use millpond_fs::mount::MountTable;
use millpond_fs::pin_newest;
use millpond_fs::view::{InUse, ViewError};

/// Interval of checks for a directory that the worker has not created yet.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Interval of attempts to adopt volumes whose adoption failed.
const ADOPT_INTERVAL: Duration = Duration::from_secs(10);

/// How long to wait for a Dataset that a synced plan lacks: the plan may lag behind by seconds.
const UNKNOWN_DATASET_TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout of `statfs` of a view, which the kernel or this process serves from memory.
const STATFS_TIMEOUT: Duration = Duration::from_secs(5);

/// Problem of a volume that a previous driver published and this one could not adopt.
const NOT_SERVED: &str = "the driver has not taken over this volume yet; retrying every 10 s";

/// Size and health of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeStats {
    /// Bytes of the Dataset.
    pub bytes: u64,
    /// Its files and directories.
    pub files: u64,
    /// Problem of the volume; `None`: it is healthy.
    pub abnormal: Option<String>,
}

impl VolumeStats {
    /// Returns the stats of a volume whose size is unknown, for this reason.
    fn unknown(reason: impl Into<String>) -> Self {
        Self {
            bytes: 0,
            files: 0,
            abnormal: Some(reason.into()),
        }
    }
}

/// Volumes of this node, by target.
pub struct Volumes {
    datasets: Arc<Datasets>,
    reports: Arc<Reports>,
    records: Records,
    /// How long a publish call waits for a missing plan, catalog or worker.
    timeout: Duration,
    known: Mutex<BTreeMap<PathBuf, Volume>>,
    target_locks: Mutex<BTreeMap<PathBuf, Arc<AsyncMutex<()>>>>,
    tasks: TaskTracker,
    ready: AtomicBool,
}

struct Volume {
    record: Record,
    /// `None`: published by a previous driver, and not adopted yet.
    in_use: Option<DatasetUseGuard>,
}

impl Volumes {
    /// Reads the records; [`Self::adopt`] must follow. `timeout` is how long a publish call may wait.
    ///
    /// # Errors
    /// If the node's disk cannot be read.
    pub fn open(datasets: Arc<Datasets>, reports: Arc<Reports>, timeout: Duration) -> io::Result<Arc<Self>> {
        let (records, found) = Records::open(datasets.layout().volumes())?;
        let mut known = BTreeMap::new();
        for (target, record) in found {
            let pods = Target::parse("target", &target.to_string_lossy(), datasets.layout());
            // Without the pod's directory the pod no longer exists.
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
            timeout,
            known: Mutex::new(known),
            target_locks: Mutex::default(),
            tasks: TaskTracker::new(),
            ready: AtomicBool::new(false),
        }))
    }

    /// Returns whether the adoption of a previous driver's volumes has been attempted.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Adopts the mounted volumes. Volumes unmounted by a reboot wait for the kubelet to publish them again.
    pub async fn adopt(self: &Arc<Self>) {
        let table = MountTable::read().unwrap_or_default();
        let records: Vec<Record> = {
            let known = self.known.lock();
            let mounted = known
                .values()
                .filter(|volume| table.top_at(&volume.record.target).is_some());
            mounted.map(|volume| volume.record.clone()).collect()
        };
        let in_use: BTreeSet<_> = records.iter().map(|record| record.dataset.uid.clone()).collect();
        self.datasets.clean(&in_use);
        for record in records {
            let target = record.target.clone();
            match self.adopt_one(record.clone()).await {
                Ok(()) => info!(target = %target.display(), "adopted a volume"),
                Err(error) => {
                    warn!(target = %target.display(), error = error.describe(), "failed to adopt a volume; retrying every 10 s");
                    self.reports.volume_published(&record);
                    self.reports.record_health(&record.key(), Some(NOT_SERVED));
                }
            }
        }
        self.ready.store(true, Ordering::Release);
    }

    /// Retries the adoption of volumes that [`Self::adopt`] failed to adopt, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
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
                let lock = self.target_lock(&target);
                let _guard = lock.lock().await;
                let Some((record, false)) = self.before(&target) else {
                    continue;
                };
                if !is_mounted(&target).unwrap_or(false) {
                    continue;
                }
                match self.adopt_one(record).await {
                    Ok(()) => info!(target = %target.display(), "adopted a volume"),
                    Err(error) => debug!(error = error.describe(), "failed again to adopt a volume"),
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

    /// Publishes a volume; succeeds if the same is already published.
    ///
    /// # Errors
    /// If something is missing or not allowed.
    ///
    /// # Cancel safety
    /// A dropped call runs to its end in its task.
    pub async fn publish(self: &Arc<Self>, publish: Publish) -> Result<(), VolumeError> {
        let target = Target::parse("target_path", &publish.target_path, self.datasets.layout())?;
        let request = request(publish)?;
        let volumes = Arc::clone(self);
        let task = self
            .tasks
            .spawn(async move { volumes.publish_at(target, request).await });
        task.await
            .unwrap_or_else(|error| Err(VolumeError::system("publish a volume")(error.into())))
    }

    /// Unpublishes a volume; succeeds if it is not published.
    ///
    /// # Errors
    /// If a system call fails.
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
            .unwrap_or_else(|error| Err(VolumeError::system("unpublish a volume")(error.into())))
    }

    /// Returns the size and health of a volume.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`] if it is not on this node.
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
            let dataset = self.datasets.open_dataset(&uid).ok_or_else(not_found)?;
            self.check_health(target, &dataset).await
        } else {
            VolumeStats::unknown(NOT_SERVED)
        };
        self.reports.record_health(&key, stats.abnormal.as_deref());
        Ok(stats)
    }

    /// Checks a volume that this driver serves.
    async fn check_health(&self, target: Target, dataset: &Dataset) -> VolumeStats {
        let mounted = MountTable::read().is_ok_and(|table| table.top_at(target.path()).is_some());
        if !mounted {
            return VolumeStats::unknown(
                "the volume is not mounted any more: delete the pod, so that it is mounted again",
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
                format!("statfs of the volume failed: {error}")
            }
            Ok(Err(_)) | Err(_) => "statfs of the volume timed out".to_owned(),
        };
        VolumeStats::unknown(unreachable.unwrap_or(reason))
    }

    async fn publish_at(&self, target: Target, request: VolumeRequest) -> Result<(), VolumeError> {
        let lock = self.target_lock(target.path());
        let _guard = lock.lock().await;
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
            warn!(target = %target.path().display(), "published volume is not mounted; mounting again");
            self.unmount(target.path(), &record.dataset.uid).await?;
        }
        let deadline = Instant::now() + self.timeout;
        // The record of the same volume that survived a reboot or a killed driver.
        let before = before
            .map(|(record, _)| record)
            .filter(|record| record.request == request);
        let wanted = self.wait_for_dataset(&request.wanted, deadline).await?;
        allow(&wanted, &request)?;
        let (dataset, in_use) = self.datasets.acquire(&wanted, self.recorded(&wanted.uid)).await?;
        self.wait_for_catalog(&dataset, deadline).await?;
        let (kind, _pin) = self.choose(&wanted, &dataset, before.as_ref())?;
        if request.context.is_some() && !matches!(kind, Kind::Kernel { .. }) {
            return Err(VolumeError::Impossible {
                reason:
                    "an SELinux context needs a kernel view, which this volume has not on this node: set \
                         `view: Snapshot` on the Dataset, or leave seLinuxOptions out of the pod"
                        .to_owned(),
            });
        }
        self.wait_for_layers(&dataset, &kind, deadline).await?;
        unmount_stale(target.path())?;
        target
            .create()
            .map_err(VolumeError::system("create the directory of a volume"))?;
        let recorded = RecordedDataset {
            uid: wanted.uid.clone(),
            namespace: wanted.namespace.clone(),
            name: wanted.name.clone(),
            pool: wanted.pool.clone(),
        };
        let record = Record::new(target.path().to_owned(), request, recorded, kind);
        let put = self.records.put(&record);
        put.map_err(VolumeError::system("write the record of a volume"))?;
        if let Err(error) = mount(&record, &dataset, self.datasets.layout()).await {
            // A previous record stays: it names the generation that the pod has to see.
            if before.is_none() {
                self.records
                    .remove(target.path())
                    .map_err(VolumeError::system("remove the record of a volume"))?;
            }
            let _failed = target.remove();
            return Err(error.into());
        }
        dataset.forget_recorded(target.path());
        info!(
            target = %target.path().display(), dataset = wanted.uid, generation = record.generation(),
            kernel = record.is_kernel(), "published a volume"
        );
        self.insert(record, in_use);
        Ok(())
    }

    async fn unpublish_at(&self, target: &Target, volume_id: &str) -> Result<(), VolumeError> {
        let lock = self.target_lock(target.path());
        {
            let _guard = lock.lock().await;
            let before = self.before(target.path());
            if let Some((record, _)) = &before {
                if record.request.volume_id != volume_id {
                    return Err(VolumeError::Exists {
                        target: target.path().to_owned(),
                    });
                }
                self.unmount(target.path(), &record.dataset.uid).await?;
            }
            unmount_stale(target.path())?;
            target
                .remove()
                .map_err(VolumeError::system("remove the directory of a volume"))?;
            self.records
                .remove(target.path())
                .map_err(VolumeError::system("remove the record of a volume"))?;
            if let Some((record, _)) = before {
                self.known.lock().remove(target.path());
                self.reports.volume_unpublished(&record.key());
                info!(target = %target.path().display(), "unpublished a volume");
            }
        }
        let mut target_locks = self.target_locks.lock();
        // Only this map's and this call's references: no other task waits.
        if Arc::strong_count(&lock) <= 2 {
            target_locks.remove(target.path());
        }
        Ok(())
    }

    /// Unmounts the view, if this driver serves it.
    async fn unmount(&self, target: &Path, uid: &str) -> Result<(), VolumeError> {
        let Some(dataset) = self.datasets.open_dataset(uid) else {
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

    fn target_lock(&self, target: &Path) -> Arc<AsyncMutex<()>> {
        Arc::clone(self.target_locks.lock().entry(target.to_owned()).or_default())
    }

    /// Returns the record of the target, and whether this driver serves it.
    fn before(&self, target: &Path) -> Option<(Record, bool)> {
        let known = self.known.lock();
        let volume = known.get(target)?;
        Some((volume.record.clone(), volume.in_use.is_some()))
    }

    fn insert(&self, record: Record, in_use: DatasetUseGuard) {
        self.reports.volume_published(&record);
        let volume = Volume {
            record: record.clone(),
            in_use: Some(in_use),
        };
        self.known.lock().insert(record.target, volume);
    }

    /// Returns the generations that adopted volumes of a Dataset need.
    fn recorded(&self, uid: &str) -> BTreeMap<PathBuf, Generation> {
        let known = self.known.lock();
        let of_dataset = known.values().filter(|volume| volume.record.dataset.uid == uid);
        of_dataset
            .filter_map(|volume| Some((volume.record.target.clone(), volume.record.kind.generation()?)))
            .collect()
    }

    /// Returns the Dataset of a published volume, which may have left the plan since.
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
            let (found, synced) = {
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
            let until = if synced { unknown } else { deadline };
            let (namespace, name) = match wanted {
                DatasetSelector::Uid { namespace, name, .. } | DatasetSelector::Name { namespace, name } => {
                    (namespace, name)
                }
            };
            match tokio::time::timeout_at(until, plan.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => {
                    return Err(VolumeError::NotReady {
                        missing: if synced {
                            format!(
                                "the Dataset {namespace}/{name} does not exist: see `kubectl get dataset -n {namespace} {name}`"
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
        let ready = async {
            // The senders live as long as the Dataset.
            drop(catalogs.wait_for(Option::is_some).await);
            let mut opened = dataset.served.fuse.live_generation();
            drop(opened.wait_for(Option::is_some).await);
        };
        if tokio::time::timeout_at(deadline, ready).await.is_ok() {
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

    /// Chooses the view: the recorded generation if its catalog still exists, else the newest.
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
            missing: "the Dataset's catalog was removed meanwhile: retry".to_owned(),
        };
        let (catalog, pin) = match before.and_then(|record| recorded_catalog(record, dataset)) {
            Some(recorded) => recorded,
            None => {
                let (newest, pin) =
                    pin_newest(dataset.worker.as_ref(), &dataset.served.registry).ok_or_else(no_catalog)?;
                ((*newest).clone(), pin)
            }
        };
        let kind = match self.datasets.kernel_view(dataset.evicts) {
            Some(count_opens) => Kind::kernel(&catalog, &dataset.on_node.tiers, count_opens),
            None => Kind::Tree {
                generation: catalog.generation.0,
            },
        };
        Ok((kind, Some(pin)))
    }

    /// Waits for what a view needs: a kernel view the worker's directories, a FUSE view that its generation is open.
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
                let mut opened = dataset.served.fuse.live_generation();
                let ready = opened.wait_for(|newest| *newest >= wanted);
                match tokio::time::timeout_at(deadline, ready).await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(_)) | Err(_) => Err(VolumeError::NotReady {
                        missing: format!("the FUSE mount has not opened generation {generation} yet"),
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
                            "this node's worker of the pool {} has not created {}: see the pod of millpond-worker-{} on \
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
