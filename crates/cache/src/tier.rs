//! A tier: one directory of object files with a capacity in bytes and inodes, in memory (a tmpfs) or on disk.
//!
//! The file system is the index: an object is cached if it has a name in the directory (`directory.rs`), and no memory is
//! used for an object, except its entry in the eviction queue where there is one. Before a file is written, its space
//! (`costs.rs`) is reserved (`accounting.rs`); the space used at the last stop is found by a scan (`scan.rs`), which runs
//! beside the first reads: only writers wait for it.
//!
//! Everything survives a kill of the process at any point: a file gets its name in `objects/` when it is complete, in one
//! step; a file without such a name is either a partial object, whose map says which blocks are valid, or is removed at
//! the next start. After a crash of the machine (`state.rs`) everything is
//! moved to `unverified/` (`unverified.rs`).
//!
//! Failures of the file system never reach a reader: they are misses, counted, and logged once until it works again.
//!
//! A [`Tier`] puts its parts together. Each has its own state and lock, and is handed the parts that it needs:
//!
//! ```text
//! scan.rs  settings.rs  objects.rs  partials.rs                           operations on the tier and its objects
//! eviction.rs  corrupt.rs  unverified.rs                                  how objects are removed or restored
//! writer.rs  seals.rs  landing.rs  unlinked.rs  shards.rs                 parts of the directory
//! files.rs  state.rs  accounting.rs  eviction_queue.rs  partial_table.rs  state that all share
//! ```
//!
//! Locks, outermost first: the settings, a partial object's `publishing`, `writer.rs`, the state file, the seals, the partial
//! table, the accounts, the pool. The others are held over nothing else.

pub(crate) mod accounting;
mod block;
pub(crate) mod corrupt;
pub(crate) mod costs;
mod counters;
pub(crate) mod directory;
mod error;
pub(crate) mod eviction;
pub(crate) mod eviction_queue;
pub(crate) mod files;
mod io;
mod landing;
mod objects;
mod partial;
mod partial_table;
pub(crate) mod partials;
mod policy;
mod pool;
mod pool_share;
mod scan;
pub(crate) mod seal;
mod seals;
pub(crate) mod settings;
mod shards;
mod state;
mod unlinked;
mod unverified;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use millpond_core::ObjectId;
use parking_lot::Mutex;

use self::accounting::{SHARDS, SpaceAccounting, SpaceReservation};
pub use self::block::{BLOCK_BYTES, BlockIndex};
use self::corrupt::CorruptObjects;
use self::costs::{Costs, DiskSpace};
pub(crate) use self::counters::Counters;
pub use self::counters::StoreCounters;
use self::directory::{Directory, TierDir};
pub use self::error::{NotStored, StoreError};
use self::eviction::ObjectEviction;
use self::eviction_queue::{QueueSlot, spare};
use self::files::TierFiles;
use self::landing::LandingLinks;
use self::objects::Objects;
pub use self::partial::{Partial, Progress};
use self::partial_table::PartialTable;
use self::partials::Partials;
pub use self::policy::{BackgroundRates, Eviction, Limit, Medium, ReservePolicy};
pub use self::pool::PoolCapacity;
use self::scan::StartupScan;
use self::seals::Seals;
use self::settings::{CurrentSettings, TierSettings};
use self::shards::Shards;
use self::state::{CrashCheck, LAYOUT, State, StateFile};
use self::unlinked::UnlinkedFiles;
use self::unverified::{UnverifiedObjects, mark_unverified};
use self::writer::DirectoryWriter;

/// How to open a tier.
#[derive(Clone, Debug)]
pub(crate) struct TierOptions {
    pub(crate) medium: Medium,
    pub(crate) path: PathBuf,
    pub(crate) settings: TierSettings,
    /// The capacity that it shares with other tiers; `None`: it shares none.
    pub(crate) pool: Option<Arc<PoolCapacity>>,
    pub(crate) identity: String,
    pub(crate) boot_id: String,
    pub(crate) landing_ttl: Duration,
}

/// One tier of a store.
#[derive(Debug)]
pub(crate) struct Tier {
    medium: Medium,
    path: PathBuf,
    files: Arc<TierFiles>,
    state: Arc<StateFile>,
    accounting: Arc<SpaceAccounting>,
    queue: Arc<QueueSlot>,
    shards: Arc<Shards>,
    writer: Arc<DirectoryWriter>,
    landing: Arc<LandingLinks>,
    unlinked: Arc<UnlinkedFiles>,
    corrupt: Arc<CorruptObjects>,
    unverified: Arc<UnverifiedObjects>,
    partials: Arc<Partials>,
    objects: Objects,
    eviction: ObjectEviction,
    settings: Arc<CurrentSettings>,
    scan: StartupScan,
}

impl Tier {
    /// Opens and locks the directory. Fast: the [`scan`](Self::scan) does the rest.
    pub(crate) fn open(options: TierOptions, counters: Arc<Counters>) -> Result<Arc<Self>, StoreError> {
        let TierOptions {
            medium,
            path,
            settings,
            pool,
            identity,
            boot_id,
            landing_ttl,
        } = options;
        let io = |doing| {
            let path = path.clone();
            move |source| StoreError::Io { doing, path, source }
        };
        let (directory, state) = open_directory(&path, identity, &boot_id)?;
        let costs = Costs::probe(&directory).map_err(io("write"))?;
        let accounting = SpaceAccounting::new(costs, costs.fixed(&directory), pool.clone());
        let files = TierFiles::new(directory, counters);
        let queue = Arc::new(QueueSlot::default());
        let table = Arc::new(PartialTable::default());
        let shards = Shards::new(&files, &accounting);
        let writer = DirectoryWriter::new(&files, &state, &table, &shards);
        let seals = Seals::new(&files, &accounting, &table, state.epoch());
        let landing = LandingLinks::new(&files, landing_ttl);
        let unlinked = UnlinkedFiles::new(&files);
        let corrupt = CorruptObjects::new(&files, &accounting, &landing, &seals);
        let unverified = UnverifiedObjects::new(&files, &accounting, &seals, &unlinked);
        let partials = Arc::new(Partials {
            table: Arc::clone(&table),
            files: Arc::clone(&files),
            accounting: Arc::clone(&accounting),
            queue: Arc::clone(&queue),
            writer: Arc::clone(&writer),
            seals: Arc::clone(&seals),
            unlinked: Arc::clone(&unlinked),
            unverified: Arc::clone(&unverified),
            epoch: state.epoch(),
        });
        let settings = Arc::new(CurrentSettings {
            current: Mutex::new(settings),
            files: Arc::clone(&files),
            accounting: Arc::clone(&accounting),
            queue: Arc::clone(&queue),
            shards: Arc::clone(&shards),
            partials: table,
            pool,
        });
        let objects = Objects {
            files: Arc::clone(&files),
            accounting: Arc::clone(&accounting),
            queue: Arc::clone(&queue),
            shards: Arc::clone(&shards),
            writer: Arc::clone(&writer),
            seals: Arc::clone(&seals),
            landing: Arc::clone(&landing),
            corrupt: Arc::clone(&corrupt),
            unverified: Arc::clone(&unverified),
            partials: Arc::clone(&partials),
        };
        let eviction = ObjectEviction {
            files: Arc::clone(&files),
            accounting: Arc::clone(&accounting),
            landing: Arc::clone(&landing),
            seals,
            unlinked: Arc::clone(&unlinked),
        };
        let scan = StartupScan::new(&state, &settings, &partials, &unverified);
        Ok(Arc::new(Self {
            medium,
            path,
            files,
            state,
            accounting,
            queue,
            shards,
            writer,
            landing,
            unlinked,
            corrupt,
            unverified,
            partials,
            objects,
            eviction,
            settings,
            scan,
        }))
    }

    pub(crate) const fn medium(&self) -> Medium {
        self.medium
    }

    pub(crate) fn is_memory(&self) -> bool {
        self.medium == Medium::Memory
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn files(&self) -> &TierFiles {
        &self.files
    }

    pub(crate) const fn accounting(&self) -> &Arc<SpaceAccounting> {
        &self.accounting
    }

    pub(crate) fn queue(&self) -> &QueueSlot {
        &self.queue
    }

    pub(crate) fn shards(&self) -> &Shards {
        &self.shards
    }

    pub(crate) fn landing(&self) -> &LandingLinks {
        &self.landing
    }

    pub(crate) fn unlinked(&self) -> &UnlinkedFiles {
        &self.unlinked
    }

    pub(crate) fn corrupt(&self) -> &CorruptObjects {
        &self.corrupt
    }

    pub(crate) fn unverified(&self) -> &UnverifiedObjects {
        &self.unverified
    }

    pub(crate) const fn partials(&self) -> &Arc<Partials> {
        &self.partials
    }

    pub(crate) const fn objects(&self) -> &Objects {
        &self.objects
    }

    pub(crate) const fn eviction(&self) -> &ObjectEviction {
        &self.eviction
    }

    pub(crate) fn settings(&self) -> &CurrentSettings {
        &self.settings
    }

    pub(crate) const fn scan(&self) -> &StartupScan {
        &self.scan
    }

    /// Reserves space, if so much is free now.
    pub(crate) fn reserve(
        &self,
        id: ObjectId,
        cost: DiskSpace,
        seal_is_file: bool,
        policy: ReservePolicy,
    ) -> Option<SpaceReservation> {
        let mut capacity = self.accounting.totals().capacity;
        if policy == ReservePolicy::FreeOnly && self.queue.get().is_some() {
            capacity = spare(capacity);
        }
        self.accounting.reserve(id, cost, seal_is_file, capacity)
    }

    /// The ids of complete and partial objects that `is_referenced` does not know.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn unreferenced(
        &self,
        is_referenced: &dyn Fn(ObjectId) -> bool,
    ) -> std::io::Result<Vec<ObjectId>> {
        let mut unreferenced = self.partials.table().ids();
        unreferenced.retain(|id| !is_referenced(*id));
        for shard in 0..SHARDS {
            for place in [TierDir::Objects, TierDir::Unverified] {
                let ids = self.shards.objects(place, shard)?.into_iter().map(|(id, _)| id);
                unreferenced.extend(ids.filter(|id| !is_referenced(*id)));
            }
        }
        Ok(unreferenced)
    }

    /// Marks the stop as clean, after everything is on disk.
    pub(crate) fn close(&self) -> Result<(), NotStored> {
        self.writer.write("mark the clean stop", |directory| {
            rustix::fs::syncfs(directory.root())?;
            self.state.write_clean(directory)
        })
    }
}

/// Opens and locks a tier's directory, and moves what survived a crash of the machine to `unverified/`.
fn open_directory(
    path: &Path,
    identity: String,
    boot_id: &str,
) -> Result<(Directory, Arc<StateFile>), StoreError> {
    let io = |doing| {
        move |source| StoreError::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    };
    let mut directory = Directory::lock(path).map_err(|error| match error.raw_os_error() {
        Some(libc::EWOULDBLOCK) => StoreError::InUse {
            path: path.to_owned(),
        },
        _ => io("open")(error),
    })?;
    let found = State::read(&directory).map_err(io("read the state"))?;
    if let Some(found) = &found {
        if found.layout != LAYOUT {
            return Err(StoreError::OtherLayout {
                path: path.to_owned(),
                found: found.layout,
                known: LAYOUT,
            });
        }
        if found.identity != identity {
            return Err(StoreError::OtherIdentity {
                path: path.to_owned(),
                found: found.identity.clone(),
                wanted: identity,
            });
        }
    }
    let CrashCheck {
        state,
        crashed,
        mut changed,
    } = State::check(found, &identity, boot_id);
    if crashed {
        directory = mark_unverified(directory).map_err(io("set aside what survived a crash"))?;
        state.write(&directory).map_err(io("write the state"))?;
        changed = false;
    }
    Ok((directory, StateFile::new(state, changed)))
}
