//! From the listings of all sources to a new generation.
//!
//! One refresh runs at a time; who asks during one waits for it and then runs their own, since the one under way
//! may have passed what they want to see. The listing goes straight into the catalog's builder on a blocking
//! thread; a hash over all entries, which does not depend on their order, tells whether anything changed. Only
//! then is there a new generation.

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

/// Batches between the listing and the builder: enough that neither waits for the other's hiccups.
const QUEUED_BATCHES: usize = 16;

/// Sources that are listed at the same time, each by its own workers.
const MAX_CONCURRENT_LISTINGS: usize = 8;

/// As many samples of refused keys as the catalog keeps of its own.
const MAX_SAMPLES: usize = 1_000;

/// After a listing that failed, when no interval is set.
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

/// What a refresh came to.
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

/// A listing under way, for a progress line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListingProgress {
    /// Whether one is.
    pub running: bool,
    /// Objects listed so far, by the running or the last one.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// When and how the last refresh ended.
#[derive(Clone, Debug, Default)]
pub(super) struct LastRefresh {
    pub(super) at: Option<SystemTime>,
    pub(super) took: Duration,
    pub(super) error: Option<RefreshError>,
}

/// Everything a refresh needs.
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

/// What somebody may change while the Dataset runs.
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

/// What changes from refresh to refresh.
#[derive(Debug, Default)]
pub(super) struct RefreshState {
    turn: tokio::sync::Mutex<()>,
    changed: Notify,
    /// Counts the times that options were changed.
    settings: watch::Sender<u64>,
    /// Counts the times that they were so changed that a listing under way is of no use.
    superseded: watch::Sender<u64>,
    progress: watch::Sender<ListingProgress>,
    last: Mutex<LastRefresh>,
}

impl Refresher {
    /// Lists the source and publishes a new generation if anything changed.
    pub(super) async fn refresh(&self) -> Result<RefreshOutcome, RefreshError> {
        let _turn = self.state.turn.lock().await;
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
        // A listing of the sources that were is over: what it named is known.
        self.forget_sources_in_turn();
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

    /// Takes other settings. Where what is listed `is_other`, a listing under way begins anew.
    pub(super) fn set(&self, settings: RefreshSettings, is_other: bool) {
        self.settings.store(Arc::new(settings));
        self.state.settings.send_modify(|times| *times += 1);
        if is_other {
            self.state.superseded.send_modify(|times| *times += 1);
        }
    }

    /// Forgets sources that no generation names any more, unless one that may name them is under way.
    pub(super) fn forget_sources(&self) {
        if let Ok(_turn) = self.state.turn.try_lock() {
            self.forget_sources_in_turn();
        }
    }

    fn forget_sources_in_turn(&self) {
        if !self.sources.is_any_retired() {
            return;
        }
        if let Some(named) = self.catalogs.sources() {
            self.sources.drop_unreferenced(&named);
        }
    }

    /// Says that an object changed at the source: a refresh follows soon, but not too often.
    pub(super) fn changed(&self) {
        self.state.changed.notify_one();
    }

    /// How far a listing is.
    pub(super) fn progress(&self) -> watch::Receiver<ListingProgress> {
        self.state.progress.subscribe()
    }

    /// How the last refresh ended.
    pub(super) fn last(&self) -> LastRefresh {
        self.state.last.lock().clone()
    }

    /// Refreshes on the interval and after changes, until the Dataset is closed.
    pub(super) async fn keep_fresh(&self, at_once: bool) {
        let mut due = at_once;
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
                    // The sender is ours, so it cannot be gone.
                    _ = changed_settings.changed() => continue,
                    () = self.state.changed.notified() => {
                        info!("an object changed at the source, listing it again");
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

    /// `None`: the options changed meanwhile, and it has to be done again.
    async fn list_and_build(&self) -> Result<Option<RefreshOutcome>, RefreshError> {
        let mut superseded = self.state.superseded.subscribe();
        let mounts = self.sources.mounts();
        let settings = self.settings.load_full();
        let (batches, queue) = mpsc::channel(QUEUED_BATCHES);
        let file = self.catalogs.next();
        let build = {
            let catalogs = Arc::clone(&self.catalogs);
            let target = Target {
                file,
                identity: identity(&mounts, settings.owner),
                options: self.build_options(&mounts, settings.owner),
                mounts: Arc::clone(&mounts),
            };
            tokio::task::spawn_blocking(move || build(&catalogs, target, queue))
        };
        let listed = tokio::select! {
            listed = self.list_all(&mounts, settings.listing, batches) => Some(listed),
            _ = superseded.changed() => None,
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

    /// Lists all mounts into the builder's queue; only if every one came to its end it gets the end mark.
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
        // A builder that failed has its own error to tell.
        let _gone = batches.send(None).await;
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
        let mut shown = ListProgress::default();
        loop {
            let batch = listing.next().await.map_err(|source| RefreshError::List {
                mount: Arc::clone(&mount.id),
                source,
            })?;
            let now = *progress.borrow();
            self.state.progress.send_modify(|all| {
                all.objects = all
                    .objects
                    .saturating_add(now.objects.saturating_sub(shown.objects));
                all.bytes = all.bytes.saturating_add(now.bytes.saturating_sub(shown.bytes));
            });
            shown = now;
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

/// A batch of the mount at a position; `None` is the true end of all listings.
type Message = Option<(u16, Batch)>;

/// What a catalog is made of and how, apart from what is listed: a catalog of another identity is not of this Dataset as
/// it is now.
pub(super) fn identity(mounts: &[Arc<Mount>], owner: Owner) -> String {
    let mounts: Vec<_> = mounts
        .iter()
        .map(|mount| (&mount.info, &mount.options.include, &mount.options.exclude))
        .collect();
    serde_json::json!([mounts, owner]).to_string()
}

/// What is to be built, and where.
struct Target {
    file: millpond_core::CatalogFile,
    identity: String,
    options: BuildOptions,
    mounts: Arc<[Arc<Mount>]>,
}

/// Builds a generation from what comes through the queue.
fn build(
    catalogs: &Catalogs,
    target: Target,
    mut queue: mpsc::Receiver<Message>,
) -> Result<(Arc<OpenCatalog>, bool), RefreshError> {
    let Target {
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
        let shows = |key: &str| mount.is_some_and(|mount| mount.shows(key));
        for refused in refused.into_iter().filter(|refused| shows(&refused.key)) {
            let reason = reason_name(&refused.reason);
            if left_out_samples.len() < MAX_SAMPLES {
                left_out_samples.push((reason.clone(), refused.key));
            }
            *left_out.entry(reason).or_default() += 1;
        }
        for object in objects.into_iter().filter(|object| shows(&object.key)) {
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

/// The name of a reason as it is written everywhere.
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
    fn add(&mut self, source: u16, object: &crate::listing::Listed) {
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
