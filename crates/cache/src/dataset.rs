//! One Dataset on this node: the worker that a driver talks to.
//!
//! A [`Dataset`] combines the other modules: [`Source`](crate::source::Source)s that are listed into one catalog
//! ([`mounts`], [`refresh`](Dataset::refresh)), for each an [`Origin`](crate::fetch::Origin) that fetches bytes of
//! a given version, and a [`Store`] that keeps them. It serves a driver through
//! [`millpond_core::Worker`]:
//!
//! - `fetch_to_landing` fetches a complete small object ([`read_path`]) and detects sequential access to
//!   directories ([`directory_prefetch`]);
//! - `read` answers from the partial file of a large object; it fetches missing blocks and, for a sequential
//!   reader, those that follow;
//! - a file that is open through FUSE pins its object against eviction;
//! - objects that no catalog references are removed ([`unreferenced`]);
//! - an object that the store has no space for bypasses the cache, its blocks held in memory for a short time;
//! - its options may change while it is read ([`reconfigure`](Dataset::reconfigure)).
//!
//! Invariants:
//! - The object id fixes the version, and its validator goes with every request: bytes of two versions never mix,
//!   and an error is never stored as data.
//! - Concurrent requests for one object or block cause one fetch.
//! - Every buffer with an object's bytes holds its share of one memory budget. Under pressure readahead is left out
//!   first, then readers wait.
//! - Every task is owned by the Dataset; [`Dataset::stop`] ends and joins them.
//!
//! Locks: the table of an object's fetch runs comes before those of its blocks (on disk and in memory); all others
//! are leaves. None is held over requests or file contents.

mod catalogs;
mod directory_prefetch;
mod failure;
mod load;
mod mounts;
mod options;
mod read_counters;
mod read_path;
mod reconfigure;
mod record;
mod refresh;
mod sources;
mod stats;
mod unreferenced;
mod worker;

use std::sync::Arc;

use arc_swap::ArcSwap;
use millpond_core::Views;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use failure::FailureKind;
pub use load::{LoadError, LoadOptions, LoadProgress};
pub use mounts::{MountError, MountId, MountOptions};
pub use options::DatasetOptions;
pub use reconfigure::ReconfigureError;
pub use refresh::{ListingProgress, RefreshError, RefreshOutcome};
pub use stats::{
    CatalogStats, DatasetStats, LoadStats, MemoryStats, OriginStats, ReadStats, RefusedSample, StoreStats,
    TierStats,
};

use crate::fetch::{Budget, OriginOptions};
use crate::metrics::{DatasetMetrics, WorkerMetrics};
use crate::store::{Store, StoreError, StoreOptions};
use catalogs::Catalogs;
use directory_prefetch::DirectoryPrefetcher;
use mounts::MountContext;
use options::MIN_MEMORY_BYTES;
use read_counters::ReadCounters;
use read_path::{BlockReader, FetchContext, OpenFiles, SmallObjectFetcher, Transient};
use reconfigure::Current;
use refresh::{RefreshSettings, RefreshState, Refresher};
use sources::Sources;

/// The largest part of the budget for blocks that the store has no space for.
const MAX_TRANSIENT_BYTES: u64 = 48 << 20;

/// Why a Dataset cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A mount is invalid.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The cache directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The catalogs in the cache directory cannot be read.
    #[error("failed to open the catalogs in {path}")]
    Catalogs {
        /// Their directory.
        path: std::path::PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The process is shutting down.
    #[error("shutdown interrupted the opening")]
    Interrupted,
}

/// One Dataset on this node.
#[derive(Debug)]
pub struct Dataset {
    name: String,
    small_object_bytes: u64,
    fresh: bool,
    current: Current,
    identity: String,
    sources: Arc<Sources>,
    store: Arc<Store>,
    catalogs: Arc<Catalogs>,
    budget: Budget,
    fetch_context: Arc<FetchContext>,
    refresher: Arc<Refresher>,
    small_objects: Arc<SmallObjectFetcher>,
    block_reader: Arc<BlockReader>,
    directory_prefetcher: Arc<DirectoryPrefetcher>,
    read_counters: Arc<ReadCounters>,
    metrics: DatasetMetrics,
    tasks: TaskTracker,
    runtime: Handle,
    stop: CancellationToken,
}

impl Dataset {
    /// Opens a Dataset: its cache directory and the catalog in it. Sends no request to the source yet.
    ///
    /// # Errors
    /// Names what cannot be used, and why.
    pub async fn open(
        options: DatasetOptions,
        views: Arc<dyn Views>,
        metrics: &WorkerMetrics,
    ) -> Result<Arc<Self>, OpenError> {
        let metrics = metrics.of(&options.name, &options.namespace);
        let bytes = options.memory_bytes.max(MIN_MEMORY_BYTES);
        let budget = match &options.shared_memory {
            Some(shared) => Budget::sharing(bytes, shared),
            None => Budget::new(bytes),
        };
        let context = MountContext {
            environment: options.environment.clone(),
            clients: options.clients.clone(),
            origin: origin_options(&options, &budget),
            metrics: metrics.origin.clone(),
        };
        let parts = {
            let options = options.clone();
            let open = tokio::task::spawn_blocking(move || open_directory(&options, &context, views));
            open.await.map_err(|_panicked| OpenError::Interrupted)??
        };
        let (bytes, inodes) = parts.catalogs.disk_usage();
        parts.store.set_aside(bytes, inodes);
        Ok(Self::assemble(options, parts, budget, metrics))
    }

    fn assemble(options: DatasetOptions, parts: Parts, budget: Budget, metrics: DatasetMetrics) -> Arc<Self> {
        let Parts {
            identity,
            sources,
            store,
            catalogs,
        } = parts;
        let transient_bytes = MAX_TRANSIENT_BYTES.min(budget.capacity_bytes() / 4);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let small_object_bytes = options.small_object_bytes;
        let refresher = Arc::new(Refresher {
            sources: Arc::clone(&sources),
            catalogs: Arc::clone(&catalogs),
            store: Arc::clone(&store),
            metrics: metrics.origin.clone(),
            settings: ArcSwap::from_pointee(RefreshSettings::of(&options)),
            stop: stop.clone(),
            state: RefreshState::default(),
        });
        let fetch_context = Arc::new(FetchContext {
            store: Arc::clone(&store),
            sources: Arc::clone(&sources),
            budget: budget.clone(),
            catalogs: Arc::clone(&catalogs),
            refresher: Arc::clone(&refresher),
            transient: Transient::new(usize::try_from(transient_bytes).unwrap_or(usize::MAX)),
            open_files: OpenFiles::default(),
        });
        let small_objects = Arc::new(SmallObjectFetcher::new(Arc::clone(&fetch_context), tasks.clone()));
        let block_reader = BlockReader::new(
            Arc::clone(&fetch_context),
            Arc::clone(&small_objects),
            small_object_bytes,
            tasks.clone(),
        );
        let read_counters = Arc::new(ReadCounters::new(metrics.reads.clone()));
        let directory_prefetcher = DirectoryPrefetcher::new(
            Arc::clone(&catalogs),
            Arc::clone(&store),
            Arc::clone(&small_objects),
            Arc::clone(&read_counters),
            small_object_bytes,
            tasks.clone(),
            stop.clone(),
        );
        Arc::new(Self {
            name: options.name.clone(),
            small_object_bytes,
            fresh: options.fresh,
            current: Current::new(options),
            identity,
            sources,
            store,
            catalogs,
            budget,
            fetch_context,
            refresher,
            small_objects,
            block_reader,
            directory_prefetcher,
            read_counters,
            metrics,
            tasks,
            runtime: Handle::current(),
            stop,
        })
    }

    /// Ensures that there is a catalog, and starts to keep it fresh. Call it once, before the catalog is mounted.
    ///
    /// A catalog of the previous run is used as it is, and the source listed in the background, unless the options
    /// ask for a fresh one.
    ///
    /// # Errors
    /// There is no catalog, and the source cannot be listed.
    pub async fn start(&self) -> Result<(), RefreshError> {
        let listed = self.fresh || self.catalogs.newest().is_none();
        if listed {
            self.refresher.refresh().await?;
        }
        self.tasks.spawn(unreferenced::run(
            Arc::clone(&self.catalogs),
            Arc::clone(&self.store),
            self.stop.clone(),
        ));
        let (fetch_context, stop) = (Arc::clone(&self.fetch_context), self.stop.clone());
        self.tasks.spawn(async move {
            stop.run_until_cancelled(fetch_context.transient.expire_blocks())
                .await;
        });
        let refresher = Arc::clone(&self.refresher);
        self.tasks.spawn(async move { refresher.run(!listed).await });
        Ok(())
    }

    /// Lists the source now, into a new generation if anything changed.
    ///
    /// # Errors
    /// The source could not be listed or the catalog could not be written; the old one stays.
    pub async fn refresh(&self) -> Result<RefreshOutcome, RefreshError> {
        self.refresher.refresh().await
    }

    /// Returns why the last listing failed; `None`: it succeeded.
    pub fn refresh_error(&self) -> Option<RefreshError> {
        self.refresher.last().error
    }

    /// Returns the progress of the listing, now and later.
    pub fn listing(&self) -> watch::Receiver<ListingProgress> {
        self.refresher.progress()
    }

    /// Returns the files of a generation that is still on disk.
    pub fn catalog(&self, generation: millpond_core::Generation) -> Option<Arc<millpond_core::CatalogFile>> {
        self.catalogs.get(generation).map(|open| Arc::clone(&open.file))
    }

    /// Returns the owner recorded in the cache directory.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Returns whether an object is completely cached.
    pub fn has(&self, id: millpond_core::ObjectId) -> bool {
        self.store.has(id)
    }

    /// Returns how many bytes of the disk may be evicted.
    pub fn evictable_bytes(&self) -> u64 {
        self.store.evictable_bytes()
    }

    /// Evicts so many bytes of the disk, as far as the policy allows, because others need the space.
    ///
    /// # Cancel safety
    /// Safe: an eviction that has begun completes.
    pub async fn evict_bytes(&self, bytes: u64) {
        self.store.evict_bytes(bytes).await;
    }

    /// Sets the gauges to the current values: call it before metrics are gathered.
    pub fn update_gauges(&self) {
        self.stats().export(&self.metrics);
    }

    /// Ends all tasks, marks the cache directory as cleanly closed, and removes the metrics. Nothing is served
    /// afterwards.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.store.stop().await;
        self.metrics.remove();
    }

    fn not_stopping(&self) -> Result<(), millpond_core::ReadError> {
        if self.stop.is_cancelled() {
            Err(millpond_core::ReadError::Stopping)
        } else {
            Ok(())
        }
    }
}

/// The parts of a Dataset that are on disk, or that open files.
struct Parts {
    identity: String,
    sources: Arc<Sources>,
    store: Arc<Store>,
    catalogs: Arc<Catalogs>,
}

/// Opens sources, store and catalogs, which may all walk directories.
fn open_directory(
    options: &DatasetOptions,
    context: &MountContext,
    views: Arc<dyn Views>,
) -> Result<Parts, OpenError> {
    let mounts = mounts::open_all(&options.mounts, context, &[])?;
    let identity = options.identity.clone().unwrap_or_else(|| {
        let ids: Vec<_> = mounts.iter().map(|mount| mount.info.id.as_str()).collect();
        ids.join(" ")
    });
    let store = StoreOptions {
        disk: options.cache_directory.clone(),
        disk_limit: options.disk_limit,
        disk_pool: options.disk_pool.clone(),
        memory: options.memory_tier.clone(),
        eviction: options.eviction,
        boot_id: options.boot_id.clone(),
        identity: identity.clone(),
    };
    // First, since it locks the directory.
    let store = Store::open(store, views)?;
    let path = options.cache_directory.join("catalog");
    let of = refresh::identity(&mounts, options.owner);
    let catalogs = Catalogs::open(path.clone(), &options.boot_id, &of, options.first_generation)
        .map_err(|source| OpenError::Catalogs { path, source })?;
    Ok(Parts {
        identity,
        sources: Arc::new(Sources::new(mounts)),
        store,
        catalogs: Arc::new(catalogs),
    })
}

fn origin_options(options: &DatasetOptions, budget: &Budget) -> OriginOptions {
    OriginOptions {
        budget: options.hedging.then(|| budget.clone()),
        ..options.origin.clone()
    }
}
