//! The face of the cache: what is kept on this node of one Dataset, and the room for more of it.
//!
//! A [`Store`] is one cache directory (and, where there is a memory tier, one tmpfs beside it). It knows objects
//! only by id and size: what they are and where they come from is the fetcher's business. The way of an object:
//!
//! - small: [`Store::reserve`] → fetch → [`Store::put`]. It is then complete, sealed, in `objects/` and, for the
//!   lookup that waits for it, in `landing/`.
//! - large: [`Store::partial`] → [`Partial::missing`] → fetch → [`Partial::write`], block by block and in any order;
//!   [`Partial::map`] answers reads of what is here. The last block publishes it.
//!
//! Whatever the disk does, the answer is either the right bytes or "not here": [`NoRoom`] says that something is not
//! kept, and that its reader is to be served through.

use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use catalog::ObjectId;
use protocol::{Mapping, Opened, TierDirectories, Views};

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

/// How to open a store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The cache directory; made if it is not there.
    pub disk: PathBuf,
    /// What it may hold.
    pub disk_limit: Limit,
    /// `None`: no memory tier.
    pub memory: Option<MemoryTier>,
    /// What makes room.
    pub eviction: Eviction,
    /// The kernel's boot id: another one without a clean stop means that the machine crashed.
    pub boot_id: String,
    /// What the directory caches (the canonical source): it is refused for anything else.
    pub identity: String,
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
    #[error("cache directory {path} belongs to {found}, not to {wanted}")]
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
pub enum NoRoom {
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

/// Room in a tier, promised to one object. Given back when dropped, unless [`Store::put`] has used it.
#[derive(Debug)]
pub struct Room {
    id: ObjectId,
    size_bytes: u64,
}

impl Room {
    /// The object that the room is for.
    pub const fn id(&self) -> ObjectId {
        self.id
    }

    /// Its length in bytes.
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

/// What is kept of one Dataset on this node.
#[derive(Debug)]
pub struct Store {}

impl Store {
    /// Opens the cache directory, making it if needed, and takes stock of what it holds.
    ///
    /// Blocks: walks all objects. Must be called within a tokio runtime, which runs the background work.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while another store has it open; [`StoreError::OtherIdentity`] and
    /// [`StoreError::OtherLayout`] for a directory that is not this Dataset's.
    pub fn open(_options: StoreOptions, _views: Arc<dyn Views>) -> Result<Arc<Self>, StoreError> {
        Ok(Arc::new(Self {}))
    }

    /// The tiers' directories, fastest first.
    pub fn directories(&self) -> Vec<TierDirectories> {
        Vec::new()
    }

    /// Opens an object that is complete and verified; one that came through a crash of the machine is verified now
    /// if it is small, or else becomes a [`Partial`] whose blocks are verified one by one.
    ///
    /// Counts as a use for eviction.
    pub async fn object(&self, _id: ObjectId, _size_bytes: u64) -> Option<Arc<File>> {
        None
    }

    /// Whether an object is complete and verified. One `stat` a tier; does not count as a use.
    pub fn has(&self, _id: ObjectId) -> bool {
        false
    }

    /// Promises room for an object that will be [`put`](Self::put) whole. May evict, and wait for that.
    ///
    /// # Errors
    /// The object is not to be kept.
    ///
    /// # Cancel safety
    /// Safe: a dropped future has promised nothing.
    pub async fn reserve(&self, _id: ObjectId, _size_bytes: u64) -> Result<Room, NoRoom> {
        Err(NoRoom::Full)
    }

    /// Keeps a whole object: when this returns, it is in `objects/` and in `landing/`.
    ///
    /// `content` must be exactly as long as the room was reserved for, and must have been checked on arrival.
    ///
    /// # Errors
    /// The object was not kept.
    ///
    /// # Cancel safety
    /// Safe: the object is kept or not, never half.
    pub async fn put(&self, _room: Room, _content: Vec<Bytes>) -> Result<(), NoRoom> {
        Err(NoRoom::Full)
    }

    /// Opens what is here of a large object, or reserves room for all of it.
    ///
    /// All callers at one time share one [`Partial`]. For an object that is complete already it has no block missing.
    ///
    /// # Errors
    /// There is no room for it.
    pub async fn partial(&self, _id: ObjectId, _size_bytes: u64) -> Result<Arc<Partial>, NoRoom> {
        Err(NoRoom::Full)
    }

    /// Opens what is here of an object, or `None` where there is nothing yet. Reserves nothing.
    pub async fn existing_partial(&self, _id: ObjectId, _size_bytes: u64) -> Option<Arc<Partial>> {
        None
    }

    /// Counts opens that the kernel answered alone: the eviction order goes by them.
    pub fn used(&self, _opens: &[Opened]) {}

    /// Counts what others keep in the disk tier's directory (the catalogs) as used.
    pub fn set_aside(&self, _bytes: u64, _inodes: u64) {}

    /// What each tier holds.
    pub fn usage(&self) -> Vec<TierUsage> {
        Vec::new()
    }

    /// What happened since the store was opened.
    pub fn counters(&self) -> StoreCounters {
        StoreCounters::default()
    }

    /// Ends the background work, writes everything to disk and marks the stop as clean.
    ///
    /// Without it nothing is lost but time: after the next boot all objects are verified before they are served.
    pub async fn stop(&self) {}
}

/// How far a partial object has come.
#[derive(Clone, Debug)]
pub enum Progress {
    /// Blocks are missing.
    Incomplete,
    /// All of it is here and published; this is the file.
    Complete(Arc<File>),
}

/// An object of which some blocks are here.
#[derive(Debug)]
pub struct Partial {}

impl Partial {
    /// The object.
    pub fn id(&self) -> ObjectId {
        unreachable!("no partial object is ever made yet")
    }

    /// Its length in bytes.
    pub fn size_bytes(&self) -> u64 {
        0
    }

    /// The complete file, once all of it is here and published.
    pub fn complete(&self) -> Option<Arc<File>> {
        None
    }

    /// The blocks that overlap `range` and have to be fetched, in order.
    ///
    /// Blocks that came through a crash of the machine are checked first (which reads them); the rest costs nothing.
    pub async fn missing(&self, _range: Range<u64>) -> Vec<BlockIndex> {
        Vec::new()
    }

    /// Keeps one block: `content` is exactly that block's bytes, checked on arrival.
    ///
    /// A block that is here already is left alone.
    ///
    /// # Errors
    /// The block was not kept (and is still missing).
    ///
    /// # Cancel safety
    /// Safe: the block is kept or not, never half.
    pub async fn write(&self, _block: BlockIndex, _content: Vec<Bytes>) -> Result<Progress, NoRoom> {
        Err(NoRoom::Full)
    }

    /// The bytes of `range` as they lie in the file, if all of its blocks are here and were checked.
    pub fn map(&self, _range: Range<u64>) -> Option<Mapping> {
        None
    }
}
