//! A tier: one directory of object files with a capacity in bytes and inodes, in memory (a tmpfs) or on disk.
//!
//! The file system is the index: what is here is what has a name in the directory (`directory.rs`), and nothing is
//! kept in memory for an object, except its place in the order of eviction where there is one. Before anything is written,
//! its room (`costs.rs`) is promised (`ledger.rs`); what was promised at the last stop is found by a walk (`stock.rs`), which
//! runs beside the first reads: only writers wait for it.
//!
//! Everything survives a kill of the process at any point: a file gets its name in `objects/` when it is whole, in one
//! step; what has no such name is either a partial object, whose map says which blocks are true, or is removed at
//! the next start. A crash of the machine moves everything to `unverified/` (`state.rs`).
//!
//! Failures of the file system never reach a reader: they are misses, counted, and logged once until it works again.

pub(crate) mod accounting;
mod block;
pub(crate) mod costs;
mod counters;
pub(crate) mod directory;
mod error;
pub(crate) mod eviction_queue;
pub(crate) mod io;
pub(crate) mod landing;
pub(crate) mod objects;
pub(crate) mod partial;
pub(crate) mod partials;
mod policy;
mod pool;
mod pool_share;
mod publish;
mod scan;
pub(crate) mod seal;
pub(crate) mod settings;
pub(crate) mod state;
mod unlinked;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use millpond_core::ObjectId;
use parking_lot::Mutex;
use rustix::io::Errno;
use tokio::sync::watch;
use tracing::{info, warn};

use self::accounting::{SpaceAccounting, SpaceReservation};
pub use self::block::{BLOCK_BYTES, BlockIndex};
use self::costs::DiskSpace;
pub(crate) use self::counters::Counters;
pub use self::counters::StoreCounters;
use self::directory::{Directory, Place};
pub use self::error::{NotStored, StoreError};
use self::eviction_queue::{EvictionQueue, spare};
use self::landing::LandingLinks;
pub use self::partial::{Partial, Progress};
use self::partials::Partials;
pub use self::policy::{BackgroundRates, Eviction, Limit, Medium, ReservePolicy};
use self::pool::PendingScan;
pub use self::pool::PoolCapacity;
use self::settings::TierSettings;
use self::state::{Epoch, LAYOUT, State};
use self::unlinked::UnlinkedFiles;

/// How to open a tier.
#[derive(Clone, Debug)]
pub(crate) struct TierOptions {
    pub(crate) medium: Medium,
    pub(crate) path: PathBuf,
    pub(crate) terms: TierSettings,
    /// What it shares with others; `None`: it is alone.
    pub(crate) pool: Option<Arc<PoolCapacity>>,
    pub(crate) identity: String,
    pub(crate) boot_id: String,
    pub(crate) landing_keep: Duration,
}

/// One tier of a store.
#[derive(Debug)]
pub(crate) struct Tier {
    options: TierOptions,
    directory: ArcSwap<Directory>,
    ledger: Arc<SpaceAccounting>,
    /// Empty until stock is taken, and while nothing is evicted.
    order: ArcSwapOption<EvictionQueue>,
    /// Held while they are changed, over a walk of the directory.
    terms: Mutex<TierSettings>,
    state: Mutex<State>,
    /// Whether the state on disk says something else.
    state_changed: bool,
    epoch: Epoch,
    landing: LandingLinks,
    partials: Partials,
    lingering: UnlinkedFiles,
    /// Whether there may be objects in `unverified/`.
    unverified: AtomicBool,
    counters: Arc<Counters>,
    /// Whether the last write failed, and was logged.
    failing: AtomicBool,
    /// Only one thread makes directories anew.
    healing: Mutex<()>,
    /// Held over a few calls to the file system: from a look at who has a seal to its removal, and from the making of one to
    /// that of its object's name. Taken before the table of the partial objects.
    sealing: Mutex<()>,
    stock: watch::Sender<bool>,
    /// Others who share the capacity wait for the stock too.
    counting: Mutex<Option<PendingScan>>,
    condemned: Mutex<Vec<objects::EvictingObject>>,
    names: AtomicU64,
}

impl Tier {
    /// Opens and locks the directory. Fast: [`scan`](Self::scan) does the rest.
    pub(crate) fn open(options: TierOptions, counters: Arc<Counters>) -> Result<Arc<Self>, StoreError> {
        let (path, terms) = (options.path.clone(), options.terms);
        let io = |doing| {
            let path = path.clone();
            move |source| StoreError::Io { doing, path, source }
        };
        let mut directory = Directory::lock(&path).map_err(|error| match error.raw_os_error() {
            Some(libc::EWOULDBLOCK) => StoreError::InUse { path: path.clone() },
            _ => StoreError::Io {
                doing: "open",
                path: path.clone(),
                source: error,
            },
        })?;
        let found = State::read(&directory).map_err(io("read the state"))?;
        if let Some(found) = &found {
            if found.layout != LAYOUT {
                return Err(StoreError::OtherLayout {
                    path,
                    found: found.layout,
                    known: LAYOUT,
                });
            }
            if found.identity != options.identity {
                let (found, wanted) = (found.identity.clone(), options.identity);
                return Err(StoreError::OtherIdentity { path, found, wanted });
            }
        }
        let mut verdict = State::judge(found, &options.identity, &options.boot_id);
        if verdict.crashed {
            directory =
                scan::mark_unverified(directory).map_err(io("set aside what came through a crash"))?;
            verdict.state.write(&directory).map_err(io("write the state"))?;
            verdict.changed = false;
        }
        let costs = scan::probe(&directory).map_err(io("write"))?;
        let ledger = SpaceAccounting::new(costs, scan::fixed(&costs, &directory), options.pool.clone());
        let counting = options.pool.as_ref().map(PoolCapacity::counting);
        Ok(Arc::new(Self {
            landing: LandingLinks::new(options.landing_keep),
            options,
            directory: ArcSwap::from_pointee(directory),
            ledger,
            order: ArcSwapOption::empty(),
            terms: Mutex::new(terms),
            epoch: verdict.state.epoch,
            state: Mutex::new(verdict.state),
            state_changed: verdict.changed,
            partials: Partials::default(),
            lingering: UnlinkedFiles::default(),
            unverified: AtomicBool::new(true),
            counters,
            failing: AtomicBool::new(false),
            healing: Mutex::new(()),
            sealing: Mutex::new(()),
            stock: watch::Sender::new(false),
            counting: Mutex::new(counting),
            condemned: Mutex::new(Vec::new()),
            names: AtomicU64::new(0),
        }))
    }

    pub(crate) const fn options(&self) -> &TierOptions {
        &self.options
    }

    pub(crate) fn directory(&self) -> Arc<Directory> {
        self.directory.load_full()
    }

    pub(crate) const fn ledger(&self) -> &Arc<SpaceAccounting> {
        &self.ledger
    }

    pub(crate) fn order(&self) -> Option<Arc<EvictionQueue>> {
        self.order.load_full()
    }

    pub(crate) const fn landing(&self) -> &LandingLinks {
        &self.landing
    }

    pub(crate) const fn partials(&self) -> &Partials {
        &self.partials
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(crate) const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Waits until it is known what the tier holds.
    pub(crate) async fn counted(&self) {
        // The sender is ours, so it cannot be gone.
        self.stock.subscribe().wait_for(|counted| *counted).await.ok();
        if let Some(pool) = &self.options.pool {
            pool.counted().await;
        }
    }

    /// Promises room, if there is some right now.
    pub(crate) fn promise(
        &self,
        id: ObjectId,
        cost: DiskSpace,
        seal_is_file: bool,
        demand: ReservePolicy,
    ) -> Option<SpaceReservation> {
        let mut capacity = self.ledger.totals().capacity;
        if demand == ReservePolicy::FreeOnly && self.order().is_some() {
            capacity = spare(capacity);
        }
        self.ledger.promise(id, cost, seal_is_file, capacity)
    }

    /// Puts an object into the order of eviction.
    pub(crate) fn order_insert(&self, id: ObjectId, cost: DiskSpace) {
        if let Some(order) = self.order() {
            order.insert(id, cost.bytes);
        }
    }

    /// Does something that writes; when a directory was deleted under us, makes it again and tries once more.
    ///
    /// # Errors
    /// Counted and logged here.
    pub(crate) fn writing<T>(
        &self,
        doing: &'static str,
        write: impl Fn(&Directory) -> std::io::Result<T>,
    ) -> Result<T, NotStored> {
        let mut result = write(&self.directory());
        if result
            .as_ref()
            .is_err_and(|error| error.raw_os_error() == Some(libc::ENOENT))
        {
            result = self
                .recreate_directories()
                .and_then(|()| write(&self.directory()));
        }
        match result {
            Ok(done) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    info!(path = %self.options.path.display(), "the cache directory works again");
                }
                Ok(done)
            }
            Err(error) => {
                self.failed(doing, &error);
                Err(NotStored::Failed)
            }
        }
    }

    /// Counts a failure of the file system, and logs the first of a row.
    pub(crate) fn failed(&self, doing: &'static str, error: &std::io::Error) {
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        if !self.failing.swap(true, Ordering::Relaxed) {
            warn!(path = %self.options.path.display(), doing, %error, "the cache directory fails, reads are served through");
        }
    }

    /// Makes deleted directories again, and counts what is left.
    fn recreate_directories(&self) -> std::io::Result<()> {
        let _only = self.healing.lock();
        let directory = self.directory();
        if Place::BELOW.iter().all(|place| is_in_place(&directory, *place)) {
            return Ok(());
        }
        warn!(path = %self.options.path.display(), "the cache directory was deleted, making it again");
        let again = directory.recreate()?;
        self.state.lock().write(&again)?;
        self.directory.store(Arc::new(again));
        self.partials.forget_deleted(&self.directory());
        self.rescan()
    }

    /// Marks the stop as clean, after everything is on disk.
    pub(crate) fn close(&self) -> Result<(), NotStored> {
        let mut state = self.state.lock().clone();
        state.clean = true;
        self.writing("mark the clean stop", |directory| {
            rustix::fs::syncfs(directory.root())?;
            state.write(directory)
        })
    }
}

/// Whether a directory is still what its name leads to.
fn is_in_place(directory: &Directory, place: Place) -> bool {
    let named = rustix::fs::stat(directory.path().join(place.name()));
    let opened = rustix::fs::fstat(directory.fd(place));
    match (named, opened) {
        (Ok(named), Ok(opened)) => (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino),
        (Err(Errno::NOENT), _) | (_, _) => false,
    }
}
