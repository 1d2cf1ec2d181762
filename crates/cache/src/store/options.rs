//! The words of the store's face: how it is opened, what it refuses, what it counts.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::PoolCapacity;

/// Length of a block: the unit of checksums and of partial fetching. The last block of an object may be shorter.
pub const BLOCK_BYTES: u64 = 1 << 20;

/// The number of a block within its object: it begins at `index * BLOCK_BYTES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockIndex(pub u32);

/// How much a tier may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Bytes of disk; `None`: what the file system had free, and what the tier held, when it was opened.
    pub bytes: Option<u64>,
    /// Inodes; `None`: likewise.
    pub inodes: Option<u64>,
}

/// The tier in memory: a tmpfs, mounted by the caller.
#[derive(Clone, Debug)]
pub struct MemoryTier {
    /// Where it is mounted.
    pub path: PathBuf,
    /// How many bytes it may hold.
    pub bytes: u64,
    /// The capacity that it shares with other stores; `None`: the tmpfs is its own.
    pub pool: Option<Arc<PoolCapacity>>,
}

/// What makes room when a tier is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Eviction {
    /// Nothing: what is in stays, more is served through.
    #[default]
    Never,
    /// The least recently used goes first.
    Lru,
    /// What is used least often goes first.
    TinyLfu,
}

/// How much somebody wants the room that they ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservePolicy {
    /// Where the tier evicts, others go for it.
    MayEvict,
    /// Only what is free now, and will not be missed: less than the level at which eviction begins. Nothing goes for it.
    FreeOnly,
}

/// How to open a store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The cache directory; made if it is not there.
    pub disk: PathBuf,
    /// What it may hold.
    pub disk_limit: Limit,
    /// The capacity that it shares with other stores; `None`: it is alone on its disk.
    pub disk_pool: Option<Arc<PoolCapacity>>,
    /// `None`: no memory tier.
    pub memory: Option<MemoryTier>,
    /// What makes room.
    pub eviction: Eviction,
    /// The kernel's boot id: another one without a clean stop means that the machine crashed.
    pub boot_id: String,
    /// What the directory caches (the canonical source): it is refused for anything else.
    pub identity: String,
}

/// What a store may be told anew while it is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// What the disk tier may hold.
    pub disk_limit: Limit,
    /// What the memory tier may hold, where there is one; `None`: what its file system has.
    pub memory_bytes: Option<u64>,
    /// What makes room.
    pub eviction: Eviction,
}

/// Why a cache directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process, or another store of this one, has it open.
    #[error("cache directory {path} is in use by another mount")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It caches something else.
    #[error("cache directory {path} belongs to {found}, not to {wanted}: give another one, or remove it")]
    OtherIdentity {
        /// The directory.
        path: PathBuf,
        /// What it caches.
        found: String,
        /// What it was to cache.
        wanted: String,
    },
    /// It was written by a version of Millpond that this one does not know.
    #[error("cache directory {path} has layout version {found}, this program knows {known}")]
    OtherLayout {
        /// The directory.
        path: PathBuf,
        /// Its layout version.
        found: u32,
        /// The layout version of this program.
        known: u32,
    },
    /// The file system says no.
    #[error("failed to {doing} in cache directory {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// Why the store does not keep something: its reader is served through. Counted, and logged where it is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotStored {
    /// The tier is full and nothing in it may go.
    #[error("the cache is full")]
    Full,
    /// The file system failed (no space, an I/O error, the directory is gone or denied).
    #[error("the cache directory cannot be written")]
    Failed,
}

/// Which kind of tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// A tmpfs.
    Memory,
    /// A directory on disk.
    Disk,
}

/// What a tier holds at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierUsage {
    /// Which tier.
    pub medium: Medium,
    /// Bytes that it may hold.
    pub capacity_bytes: u64,
    /// Bytes that are taken or promised: objects, partial files, directories, evicted objects that are still held.
    pub used_bytes: u64,
    /// Inodes that it may hold.
    pub capacity_inodes: u64,
    /// Inodes that are taken or promised.
    pub used_inodes: u64,
    /// Complete objects, verified or not.
    pub objects: u64,
    /// Bytes of content of the complete objects.
    pub object_bytes: u64,
}

/// What happened since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreCounters {
    /// Objects evicted to make room.
    pub evicted_objects: u64,
    /// Their bytes on disk.
    pub evicted_bytes: u64,
    /// Victims that were spared because somebody had them open or mapped.
    pub spared_objects: u64,
    /// Objects and blocks whose bytes were not what was fetched: each is a miss.
    pub corrupt: u64,
    /// Objects that were verified after a crash of the machine.
    pub verified_objects: u64,
    /// Objects and partial files refused because a tier was full.
    pub refused: u64,
    /// Failures of the file system.
    pub failures: u64,
    /// Calls of `Views::release` that failed.
    pub release_failures: u64,
}

/// The pace of the background work.
#[derive(Clone, Copy, Debug)]
pub struct BackgroundRates {
    /// How long a link in `landing/` stays.
    pub landing_keep: Duration,
    /// Bytes a second that the scrubber reads.
    pub scrub_bytes_per_second: u64,
    /// Bytes a second that are verified in the background after a crash of the machine.
    pub verify_bytes_per_second: u64,
}

impl Default for BackgroundRates {
    fn default() -> Self {
        // The scrubber reads a full 1 TiB tier in about 18 hours.
        Self {
            landing_keep: Duration::from_secs(120),
            scrub_bytes_per_second: 16 << 20,
            verify_bytes_per_second: 256 << 20,
        }
    }
}

/// [`StoreCounters`] while they count.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) evicted_objects: AtomicU64,
    pub(crate) evicted_bytes: AtomicU64,
    pub(crate) spared_objects: AtomicU64,
    pub(crate) corrupt: AtomicU64,
    pub(crate) verified_objects: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) release_failures: AtomicU64,
}

impl Counters {
    pub(crate) fn snapshot(&self) -> StoreCounters {
        let Self {
            evicted_objects,
            evicted_bytes,
            spared_objects,
            corrupt,
            verified_objects,
            refused,
            failures,
            release_failures,
        } = self;
        StoreCounters {
            evicted_objects: evicted_objects.load(Ordering::Relaxed),
            evicted_bytes: evicted_bytes.load(Ordering::Relaxed),
            spared_objects: spared_objects.load(Ordering::Relaxed),
            corrupt: corrupt.load(Ordering::Relaxed),
            verified_objects: verified_objects.load(Ordering::Relaxed),
            refused: refused.load(Ordering::Relaxed),
            failures: failures.load(Ordering::Relaxed),
            release_failures: release_failures.load(Ordering::Relaxed),
        }
    }
}
