//! Listing all sources into a new generation.
//!
//! One refresh runs at a time; a caller during one waits for it and then runs its own, since the running one may
//! have passed what the caller wants to see. The listing goes straight into the catalog's builder on a blocking
//! thread; a hash over all entries, which does not depend on their order, tells whether anything changed. Only then
//! is a new generation written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use futures::{StreamExt, TryStreamExt};
use millpond_catalog::{BuildOptions, Builder, Entry, Owner};
use millpond_core::Generation;
use millpond_core::Time;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::DatasetOptions;
use super::catalogs::{Catalogs, OpenCatalog};
use super::mounts::{Mount, MountId};
use super::record;
use super::sources::Sources;
use crate::listing::{Batch, ListError, ListOptions, ListProgress, Listing};
use crate::metrics::OriginMetrics;
use crate::store::Store;

/// Batches between the listing and the builder: enough to decouple their short stalls.
const QUEUED_BATCHES: usize = 16;

/// Sources listed concurrently, each by its own workers.
const MAX_CONCURRENT_LISTINGS: usize = 8;

/// Samples of refused keys, as many as the catalog keeps of its own.
const MAX_SAMPLES: usize = 1_000;

/// The delay after a failed listing, if no interval is set.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// Why there is no new generation.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RefreshError {
    /// A source could not be listed: there is no catalog of the others alone.
    #[error("failed to list {mount}")]
    List {
        /// Which one.
        mount: Arc<MountId>,
        /// Why.
        #[source]
        source: ListError,
    },
    /// The catalog could not be written.
    #[error("failed to write the catalog")]
    Build(#[source] Arc<millpond_catalog::Error>),
    /// The catalog directory could not be written.
    #[error("failed to store the catalog")]
    Store(#[source] Arc<std::io::Error>),
    /// The Dataset is being closed.
    #[error("the refresh was stopped")]
    Stopped,
}

/// The outcome of a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshOutcome {
    /// The newest generation now.
    pub generation: Generation,
    /// Whether it is a new one.
    pub changed: bool,
    /// Files in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Progress of a listing, for a progress line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListingProgress {
    /// Whether a listing is running.
    pub running: bool,
    /// Objects listed so far, by the running or the last one.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The time and the result of the last refresh.
#[derive(Clone, Debug, Default)]
pub(super) struct LastRefresh {
    pub(super) at: Option<SystemTime>,
    pub(super) took: Duration,
    pub(super) error: Option<RefreshError>,
}

/// The context and the state of refreshes.
#[derive(Debug)]
pub(super) struct Refresher {
    pub(super) sources: Arc<Sources>,
    pub(super) catalogs: Arc<Catalogs>,
    pub(super) store: Arc<Store>,
    pub(super) metrics: OriginMetrics,
    pub(super) settings: ArcSwap<RefreshSettings>,
    pub(super) stop: CancellationToken,
    pub(super) state: RefreshState,
}

/// The settings that may change while the Dataset is open.
#[derive(Debug)]
pub(super) struct RefreshSettings {
    owner: Owner,
    listing: ListOptions,
    interval: Option<Duration>,
    changed_interval: Duration,
}

impl RefreshSettings {
    pub(super) const fn of(options: &DatasetOptions) -> Self {
        Self {
            owner: options.owner,
            listing: options.listing,
            interval: options.refresh_interval,
            changed_interval: options.changed_interval,
        }
    }
}

/// The state that changes from refresh to refresh.
#[derive(Debug, Default)]
pub(super) struct RefreshState {
    lock: tokio::sync::Mutex<()>,
    changed: Notify,
    /// Counts the changes of the settings.
    settings: watch::Sender<u64>,
    /// Counts the changes that make a running listing useless.
    restarts: watch::Sender<u64>,
    progress: watch::Sender<ListingProgress>,
    last: Mutex<LastRefresh>,
}

impl Refresher {
    /// Lists the sources and publishes a new generation if anything changed.
    pub(super) async fn refresh(&self) -> Result<RefreshOutcome, RefreshError> {
        let _lock = self.state.lock.lock().await;
        let began = Instant::now();
        let result = loop {
            let listed = tokio::select! {
                listed = self.list_and_build() => listed,
                () = self.stop.cancelled() => Err(RefreshError::Stopped),
            };
            match listed {
                Ok(None) => {}
                Ok(Some(refreshed)) => break Ok(refreshed),
                Err(error) => break Err(error),
            }
        };
        // No listing of the previous sources runs any more: every source in use is in a generation.
        self.drop_sources_locked();
        self.state
            .progress
            .send_modify(|progress| progress.running = false);
        *self.state.last.lock() = LastRefresh {
            at: Some(SystemTime::now()),
            took: began.elapsed(),
            error: result.as_ref().err().cloned(),
        };
        result
    }

    /// Applies other settings. If `is_other` tree is listed, a running listing starts again.
    pub(super) fn apply_settings(&self, settings: RefreshSettings, is_other: bool) {
        self.settings.store(Arc::new(settings));
        self.state.settings.send_modify(|times| *times += 1);
        if is_other {
            self.state.restarts.send_modify(|times| *times += 1);
        }
    }

    /// Drops sources that no generation references, unless a running refresh may reference them.
    pub(super) fn drop_unreferenced_sources(&self) {
        if let Ok(_lock) = self.state.lock.try_lock() {
            self.drop_sources_locked();
        }
    }

    fn drop_sources_locked(&self) {
        if !self.sources.has_retired() {
            return;
        }
        if let Some(named) = self.catalogs.sources() {
            self.sources.drop_unreferenced(&named);
        }
    }

    /// Requests a refresh because an object changed at the source: soon, but not too often.
    pub(super) fn object_changed(&self) {
        self.state.changed.notify_one();
    }

    /// Returns the progress of the listing, now and later.
    pub(super) fn progress(&self) -> watch::Receiver<ListingProgress> {
        self.state.progress.subscribe()
    }

    /// Returns the result of the last refresh.
    pub(super) fn last(&self) -> LastRefresh {
        self.state.last.lock().clone()
    }

    /// Refreshes on the interval and after changes, until the Dataset is closed.
    pub(super) async fn run(&self, immediately: bool) {
        let mut due = immediately;
        let mut failed = false;
        let mut changed_settings = self.state.settings.subscribe();
        loop {
            if !due {
                let wait = match (self.settings.load().interval, failed) {
                    (Some(interval), true) => Some(interval.min(RETRY_INTERVAL)),
                    (None, true) => Some(RETRY_INTERVAL),
                    (interval, false) => interval,
                };
                let interval = async {
                    match wait {
                        Some(wait) => tokio::time::sleep(wait).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = self.stop.cancelled() => return,
                    () = interval => {}
                    // Never fails: `self` holds the sender.
                    _ = changed_settings.changed() => continue,
                    () = self.state.changed.notified() => {
                        info!("an object changed at the source; listing the source again");
                    }
                }
            }
            due = false;
            let result = self.refresh().await;
            failed = result.is_err();
            match result {
                Err(RefreshError::Stopped) => return,
                Err(error) => warn!(error = %error.describe(), "failed to refresh the catalog"),
                Ok(_refreshed) => {}
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(self.settings.load().changed_interval) => {}
            }
        }
    }

    /// Returns `None` if the sources changed meanwhile, and the listing has to start again.
    async fn list_and_build(&self) -> Result<Option<RefreshOutcome>, RefreshError> {
        let mut restarts = self.state.restarts.subscribe();
        let mounts = self.sources.mounts();
        let settings = self.settings.load_full();
        let (batches, queue) = mpsc::channel(QUEUED_BATCHES);
        let file = self.catalogs.next();
        let build = {
            let catalogs = Arc::clone(&self.catalogs);
            let target = BuildTarget {
                file,
                identity: identity(&mounts, settings.owner),
                options: self.build_options(&mounts, settings.owner),
                mounts: Arc::clone(&mounts),
            };
            tokio::task::spawn_blocking(move || build(&catalogs, target, queue))
        };
        let listed = tokio::select! {
            listed = self.list_all(&mounts, settings.listing, batches) => Some(listed),
            _ = restarts.changed() => None,
        };
        let built = build.await.map_err(|_panicked| RefreshError::Stopped)?;
        // An incomplete listing closed the queue early; the builder saw no end mark and wrote nothing.
        let Some(listed) = listed else {
            return Ok(None);
        };
        listed?;
        let (open, changed) = built?;
        let (bytes, inodes) = self.catalogs.disk_usage();
        self.store.set_aside(bytes, inodes);
        let summary = open.catalog.index().summary();
        let refreshed = RefreshOutcome {
            generation: open.file.generation,
            changed,
            files: summary.files,
            bytes: summary.bytes,
        };
        info!(
            generation = %refreshed.generation, changed, files = refreshed.files, bytes = refreshed.bytes,
            "listed the source"
        );
        Ok(Some(refreshed))
    }

    /// Lists all mounts into the builder's queue; sends the end mark only if every one was listed to its end.
    async fn list_all(
        &self,
        mounts: &[Arc<Mount>],
        options: ListOptions,
        batches: mpsc::Sender<Message>,
    ) -> Result<(), RefreshError> {
        self.state.progress.send_replace(ListingProgress {
            running: true,
            ..ListingProgress::default()
        });
        let positions = 0_u16..;
        let listings = futures::stream::iter(positions.zip(mounts.to_vec()))
            .map(|(position, mount)| self.list(position, mount, options, batches.clone()))
            .buffer_unordered(MAX_CONCURRENT_LISTINGS);
        listings.try_collect::<()>().await?;
        // Fails if the builder failed, which returns its own error.
        let _closed = batches.send(None).await;
        Ok(())
    }

    async fn list(
        &self,
        position: u16,
        mount: Arc<Mount>,
        options: ListOptions,
        batches: mpsc::Sender<Message>,
    ) -> Result<(), RefreshError> {
        let mut listing = Listing::start(Arc::clone(&mount.source), options, self.metrics.clone());
        let progress = listing.progress();
        let mut counted = ListProgress::default();
        loop {
            let batch = listing.next().await.map_err(|source| RefreshError::List {
                mount: Arc::clone(&mount.id),
                source,
            })?;
            let now = *progress.borrow();
            self.state.progress.send_modify(|all| {
                all.objects = all
                    .objects
                    .saturating_add(now.objects.saturating_sub(counted.objects));
                all.bytes = all.bytes.saturating_add(now.bytes.saturating_sub(counted.bytes));
            });
            counted = now;
            let Some(batch) = batch else {
                return Ok(());
            };
            if batches.send(Some((position, batch))).await.is_err() {
                return Ok(());
            }
        }
    }

    fn build_options(&self, mounts: &[Arc<Mount>], owner: Owner) -> BuildOptions {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        BuildOptions {
            sources: mounts.iter().map(|mount| mount.info.clone()).collect(),
            owner,
            created: Time {
                secs: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
                nanos: now.subsec_nanos(),
            },
            spill_directory: self.catalogs.directory().to_owned(),
            memory_bytes: 0,
        }
    }
}

/// A batch of the mount at a position; `None` marks the end of all listings.
type Message = Option<(u16, Batch)>;

/// Returns what a catalog is built from and how, apart from the listed objects: a catalog of another identity does
/// not belong to the Dataset's current configuration.
pub(super) fn identity(mounts: &[Arc<Mount>], owner: Owner) -> String {
    let mounts: Vec<_> = mounts
        .iter()
        .map(|mount| (&mount.info, &mount.options.include, &mount.options.exclude))
        .collect();
    serde_json::json!([mounts, owner]).to_string()
}

/// What to build, and where.
struct BuildTarget {
    file: millpond_core::CatalogFile,
    identity: String,
    options: BuildOptions,
    mounts: Arc<[Arc<Mount>]>,
}

/// Builds a generation from the queue.
fn build(
    catalogs: &Catalogs,
    target: BuildTarget,
    mut queue: mpsc::Receiver<Message>,
) -> Result<(Arc<OpenCatalog>, bool), RefreshError> {
    let BuildTarget {
        file,
        identity,
        options,
        mounts,
    } = target;
    let failed = |error| RefreshError::Build(Arc::new(error));
    let mut builder = Builder::new(options).map_err(failed)?;
    let mut content = ContentHash::default();
    let mut left_out = BTreeMap::<String, u64>::new();
    let mut left_out_samples = Vec::new();
    loop {
        let Some(message) = queue.blocking_recv() else {
            return Err(RefreshError::Stopped);
        };
        let Some((position, Batch { objects, refused })) = message else {
            break;
        };
        let mount = mounts.get(usize::from(position));
        let includes = |key: &str| mount.is_some_and(|mount| mount.includes(key));
        for refused in refused.into_iter().filter(|refused| includes(&refused.key)) {
            let reason = reason_name(&refused.reason);
            if left_out_samples.len() < MAX_SAMPLES {
                left_out_samples.push((reason.clone(), refused.key));
            }
            *left_out.entry(reason).or_default() += 1;
        }
        for object in objects.into_iter().filter(|object| includes(&object.key)) {
            content.add(position, &object);
            let entry = Entry {
                source: position,
                key: object.key,
                size_bytes: object.size_bytes,
                modified: object.modified,
                validator: object.validator,
            };
            builder.add(&entry).map_err(failed)?;
        }
    }
    let content = content.finish();
    if let Some(newest) = catalogs
        .newest()
        .filter(|newest| newest.record.content == content && newest.record.identity == identity)
    {
        return Ok((newest, false));
    }
    builder.finish(&file.image, &file.index).map_err(failed)?;
    let listed = record::ListingSummary {
        content,
        left_out,
        left_out_samples,
    };
    let open = catalogs
        .publish(file, &identity, listed)
        .map_err(|error| RefreshError::Store(Arc::new(error)))?;
    Ok((open, true))
}

/// Returns the serialized name of a reason.
pub(super) fn reason_name(reason: &impl Serialize) -> String {
    match serde_json::to_value(reason) {
        Ok(serde_json::Value::String(name)) => name,
        Ok(other) => other.to_string(),
        Err(_not_serializable) => "unknown".to_owned(),
    }
}

/// A hash of a set: the sum of its members' hashes. A listing in another order has the same one.
#[derive(Debug, Default)]
struct ContentHash {
    sum: u128,
    members: u64,
}

impl ContentHash {
    fn add(&mut self, source: u16, object: &crate::listing::ListedObject) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&source.to_le_bytes());
        for field in [object.key.as_str(), &object.validator.text()] {
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field.as_bytes());
        }
        hasher.update(&object.size_bytes.to_le_bytes());
        hasher.update(&object.modified.secs.to_le_bytes());
        hasher.update(&object.modified.nanos.to_le_bytes());
        let mut bytes = [0; 16];
        hasher.finalize_xof().fill(&mut bytes);
        self.sum = self.sum.wrapping_add(u128::from_le_bytes(bytes));
        self.members += 1;
    }

    fn finish(&self) -> String {
        format!("{:032x}-{}", self.sum, self.members)
    }
}
