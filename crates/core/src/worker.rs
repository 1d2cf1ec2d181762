//! Interface of a driver to the worker.

use std::collections::BTreeSet;
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::ObjectId;
use async_trait::async_trait;
use tokio::sync::watch;

use crate::{Data, Generation, ObjectRef};

/// A catalog on this node's disk, complete and immutable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogFile {
    /// Its number.
    pub generation: Generation,
    /// The EROFS image.
    pub image: PathBuf,
    /// The table from object id to inode that belongs to the image.
    pub index: PathBuf,
}

/// The directories of one tier that are layers of a kernel view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierDirectories {
    /// Complete objects, each an ordinary file at `ab/cdef...`.
    pub objects: PathBuf,
    /// Links to objects that were just fetched, for lookups in flight.
    pub landing: PathBuf,
}

/// Result of [`Worker::fetch_to_landing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LandOutcome {
    /// The object is complete and in a landing directory: the response "no such entry" makes the kernel find it there.
    Landed,
    /// It is not, and will not be before the response: the driver serves it through FUSE.
    ThroughFuse,
}

/// How an object that is opened through FUSE can be read.
#[derive(Clone, Debug)]
pub enum LocalCopy {
    /// The file has all of it, verified, at the same offsets.
    Complete(Arc<File>),
    /// Part or nothing of it is cached: call [`Worker::read`] for each range.
    Incomplete,
}

/// One open file of a reader; each has its own readahead. Not kept over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId(pub u64);

/// Opens of one object that the kernel served alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenCount {
    /// The object.
    pub id: ObjectId,
    /// Number of opens since the last report.
    pub times: u64,
}

/// Why an object cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The source holds another version than the catalog names, or none. A reader gets ESTALE.
    #[error("object {id} is not at its source any more in the version that the catalog names")]
    Changed {
        /// The version that was asked for.
        id: ObjectId,
    },
    /// The source did not return the bytes before the deadline. A reader gets EIO.
    #[error("failed to read object {id} from its source: {reason}")]
    Unavailable {
        /// The object.
        id: ObjectId,
        /// The last cause, for a log line.
        reason: String,
    },
    /// No catalog of this Dataset names the object. A reader gets ESTALE.
    #[error("no catalog names object {id}")]
    Unknown {
        /// The object.
        id: ObjectId,
    },
    /// The worker is shutting down: its successor answers the same request. Never returned to a reader.
    #[error("the worker is stopping")]
    Stopping,
}

/// The worker of one Dataset on this node, as a driver sees it.
///
/// All methods may be called concurrently from any number of tasks. Dropping a future cancels no fetch that others wait
/// for. The module `conformance` states what every implementation must do.
#[async_trait]
pub trait Worker: Send + Sync + 'static {
    /// Returns the newest catalog, as a watch; `None` until the first is listed.
    fn catalogs(&self) -> watch::Receiver<Option<Arc<CatalogFile>>>;

    /// Returns the tiers' directories, fastest first. They exist, and stay the same, for the worker's life.
    fn tiers(&self) -> Vec<TierDirectories>;

    /// Fetches a small object completely into a landing directory.
    ///
    /// # Errors
    /// The kernel view must show this very error to the reader, through its last layer.
    async fn fetch_to_landing(&self, object: ObjectRef) -> Result<LandOutcome, ReadError>;

    /// Opens the local copy of an object. Never sends a request to the source.
    async fn open_local(&self, object: ObjectRef) -> Result<LocalCopy, ReadError>;

    /// Reads `range` of an object, at most 1 MiB, from the cache or the source; shorter only at the end of the object.
    async fn read(&self, object: ObjectRef, stream: StreamId, range: Range<u64>) -> Result<Data, ReadError>;

    /// Records that a file is open as `stream`; `complete` is the object's file if [`open_local`](Self::open_local) has just
    /// returned it. Until [`file_closed`](Self::file_closed) no cached part of the object is evicted. Called again for each
    /// open file when a driver takes over from a predecessor.
    ///
    /// May be called from any thread, under locks: it must not block.
    fn file_opened(&self, object: ObjectRef, stream: StreamId, complete: Option<Arc<File>>);

    /// Records that the file open as `stream` was closed. A second call has no effect.
    fn file_closed(&self, object: ObjectRef, stream: StreamId);

    /// Returns whether an object is complete in this node's tiers. Does not count as an open.
    async fn is_complete(&self, object: ObjectRef) -> bool;

    /// Counts opens that the kernel served alone; eviction policies use them.
    fn count_kernel_opens(&self, opens: &[OpenCount]);

    /// Sets the generations that views still mount; the worker keeps these catalogs and the newest.
    fn retain_generations(&self, generations: &BTreeSet<Generation>);
}
