//! One Dataset on this node: the worker that a driver talks to.
//!
//! A [`Dataset`] puts together what the other modules offer: [`Source`](crate::source::Source)s that are listed
//! into one catalog ([`mounts`], [`refresh`](Dataset::refresh)), for each an [`Origin`](crate::fetch::Origin) that
//! brings bytes of a certain version, and a [`Store`](crate::store::Store) that keeps them. It answers a driver
//! through [`millpond_core::Worker`]:
//!
//! - `land` fetches a small object whole ([`small_object`]) and watches for walks through directories ([`directory_prefetch`]);
//! - `read` answers from the partial file of a large object, fetching what is missing and, for a reader that goes
//!   forward, what comes next ([`block_reader`], [`readahead`]);
//! - every file that FUSE may have to read for is a use of its object, which is not evicted then ([`uses`]);
//! - objects of versions that no catalog names any more go ([`unreferenced`]);
//! - what there is no room for is served through, its blocks kept in memory for a moment ([`transient`]);
//! - its options may change while it is read ([`reconfigure`](Dataset::reconfigure)).
//!
//! Invariants:
//! - The object id fixes the version, its validator goes with every request: bytes of two versions never meet, and
//!   an error is never kept as data.
//! - The same object or block wanted twice at once is one request.
//! - Every buffer with an object's bytes has its part of one budget. Under pressure read-ahead is left out first,
//!   then readers wait.
//! - Every task is owned by the Dataset; [`Dataset::stop`] ends and joins them.
//!
//! Locks: the table of an object's runs comes before those of its blocks (on disk and in memory); all others are
//! leaves. None is held over requests or file contents.

mod block_reader;
mod catalogs;
mod directory_prefetch;
mod failure;
mod fetch_run;
mod load;
mod mounts;
mod object_state;
mod options;
mod read_counters;
mod readahead;
mod reconfigure;
mod record;
mod refresh;
mod sequential;
mod small_object;
mod sources;
mod stats;
mod streams;
mod transient;
mod unreferenced;
mod uses;
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

use crate::fetch::{Budget, OriginOptions, SingleFlight};
use crate::metrics::{DatasetMetrics, WorkerMetrics};
use crate::store::{Store, StoreError, StoreOptions};
use block_reader::BlockReader;
use catalogs::Catalogs;
use directory_prefetch::DirectoryPrefetcher;
use mounts::MountContext;
use options::MIN_MEMORY_BYTES;
use read_counters::ReadCounters;
use reconfigure::Current;
use refresh::{RefreshSettings, RefreshState, Refresher};
use small_object::{FetchContext, SmallObjectFetcher};
use sources::Sources;
use streams::Streams;
use transient::Transient;
use uses::OpenFiles;

/// At most this much of the budget holds blocks that there is no room for on disk.
const MAX_TRANSIENT_BYTES: u64 = 48 << 20;

/// Why a Dataset cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A mount cannot be used as it was described.
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
    /// The process is ending.
    #[error("opening was interrupted")]
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
    fetching: Arc<FetchContext>,
    refresher: Arc<Refresher>,
    small: Arc<SmallObjectFetcher>,
    large: Arc<BlockReader>,
    walks: Arc<DirectoryPrefetcher>,
    streams: Streams,
    reads: Arc<ReadCounters>,
    metrics: DatasetMetrics,
    tasks: TaskTracker,
    runtime: Handle,
    stop: CancellationToken,
}

impl Dataset {
    /// Opens a Dataset: its cache directory and the catalog that is there. Does not talk to the source yet.
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
        let budget = match &options.common_memory {
            Some(common) => Budget::sharing(bytes, common),
            None => Budget::new(bytes),
        };
        let opening = MountContext {
            environment: options.environment.clone(),
            clients: options.clients.clone(),
            origin: origin_options(&options, &budget),
            metrics: metrics.origin.clone(),
        };
        let parts = {
            let options = options.clone();
            let open = tokio::task::spawn_blocking(move || open_directory(&options, &opening, views));
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
        let fetching = Arc::new(FetchContext {
            store: Arc::clone(&store),
            sources: Arc::clone(&sources),
            budget: budget.clone(),
            catalogs: Arc::clone(&catalogs),
            refresher: Arc::clone(&refresher),
            transient: Transient::new(usize::try_from(transient_bytes).unwrap_or(usize::MAX)),
            uses: OpenFiles::default(),
        });
        let small = Arc::new(SmallObjectFetcher::new(
            Arc::clone(&fetching),
            SingleFlight::new(tasks.clone()),
        ));
        let large = BlockReader::new(
            Arc::clone(&fetching),
            Arc::clone(&small),
            small_object_bytes,
            tasks.clone(),
        );
        let reads = Arc::new(ReadCounters::new(metrics.reads.clone()));
        let walks = DirectoryPrefetcher::new(
            Arc::clone(&catalogs),
            Arc::clone(&store),
            Arc::clone(&small),
            Arc::clone(&reads),
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
            fetching,
            refresher,
            small,
            large,
            walks,
            streams: Streams::default(),
            reads,
            metrics,
            tasks,
            runtime: Handle::current(),
            stop,
        })
    }

    /// Makes sure that there is a catalog, and starts to keep it fresh. Call it once, before anything is shown.
    ///
    /// A catalog from before is taken as it is, and the source listed in the background, unless the options ask
    /// for a fresh one.
    ///
    /// # Errors
    /// There is no catalog, and the source cannot be listed.
    pub async fn start(&self) -> Result<(), RefreshError> {
        let listed = self.fresh || self.catalogs.newest().is_none();
        if listed {
            self.refresher.refresh().await?;
        }
        self.tasks.spawn(unreferenced::remove_all(
            Arc::clone(&self.catalogs),
            Arc::clone(&self.store),
            self.stop.clone(),
        ));
        let (fetching, stop) = (Arc::clone(&self.fetching), self.stop.clone());
        self.tasks.spawn(async move {
            stop.run_until_cancelled(fetching.transient.keep_young()).await;
        });
        let refresher = Arc::clone(&self.refresher);
        self.tasks
            .spawn(async move { refresher.keep_fresh(!listed).await });
        Ok(())
    }

    /// Lists the source now; a new generation if anything changed.
    ///
    /// # Errors
    /// The source could not be listed or the catalog not be written; the old one stays.
    pub async fn refresh(&self) -> Result<RefreshOutcome, RefreshError> {
        self.refresher.refresh().await
    }

    /// Why the last listing failed; `None`: it did not.
    pub fn refresh_error(&self) -> Option<RefreshError> {
        self.refresher.last().error
    }

    /// How far a listing is.
    pub fn listing(&self) -> watch::Receiver<ListingProgress> {
        self.refresher.progress()
    }

    /// The files of a generation that is still here.
    pub fn catalog(&self, generation: millpond_core::Generation) -> Option<Arc<millpond_core::CatalogFile>> {
        self.catalogs.get(generation).map(|open| Arc::clone(&open.file))
    }

    /// Whom the cache directory belongs to.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Whether an object is here, whole.
    pub fn has(&self, id: millpond_core::ObjectId) -> bool {
        self.store.has(id)
    }

    /// What of the disk may be evicted.
    pub fn evictable_bytes(&self) -> u64 {
        self.store.evictable_bytes()
    }

    /// Evicts so much of the disk, where anything may be evicted, because others need it.
    ///
    /// # Cancel safety
    /// Safe: what was begun goes on.
    pub async fn give_way(&self, bytes: u64) {
        self.store.evict_bytes(bytes).await;
    }

    /// Sets the gauges to what is true now: call it before metrics are read out.
    pub fn update_gauges(&self) {
        self.metrics.update(&self.stats());
    }

    /// Ends all tasks, marks the cache directory as cleanly left, and takes the metrics away. Nothing is served any more.
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

/// What a Dataset is made of that is found on disk, or takes files to open.
struct Parts {
    identity: String,
    sources: Arc<Sources>,
    store: Arc<Store>,
    catalogs: Arc<Catalogs>,
}

/// Opens sources, store and catalogs, which all may walk directories.
fn open_directory(
    options: &DatasetOptions,
    opening: &MountContext,
    views: Arc<dyn Views>,
) -> Result<Parts, OpenError> {
    let mounts = mounts::open_all(&options.mounts, opening, &[])?;
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
