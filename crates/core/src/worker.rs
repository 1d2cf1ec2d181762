//! What a driver asks of the worker.

use std::collections::BTreeSet;
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::ObjectId;
use async_trait::async_trait;
use tokio::sync::watch;

use crate::{Data, Generation, ObjectRef};

/// A catalog that is on this node's disk, whole and never changed again.
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
    /// Objects that were just fetched, for a lookup that is on its way.
    pub landing: PathBuf,
}

/// What became of an object that a kernel view looked up and did not find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LandOutcome {
    /// It is complete and in a landing directory now: "no such entry" makes the kernel find it there.
    Landed,
    /// It is not, and will not be before the response: serve it through FUSE.
    ThroughFuse,
}

/// How an object that is opened through FUSE can be read.
#[derive(Clone, Debug)]
pub enum LocalCopy {
    /// All of it is in this file, checked, at the same offsets.
    Complete(Arc<File>),
    /// Some or none of it is here: ask [`Worker::read`] for each range.
    Incomplete,
}

/// One reader's open file: read-ahead follows each of them on its own. Not kept over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId(pub u64);

/// Opens of one object that the kernel answered by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenCount {
    /// What was opened.
    pub id: ObjectId,
    /// How often since the last report.
    pub times: u64,
}

/// Why an object's bytes cannot be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The source holds another version than the catalog names, or none. A reader gets ESTALE.
    #[error("object {id} is not at its source any more in the version that the catalog names")]
    Changed {
        /// The version that is gone.
        id: ObjectId,
    },
    /// The source did not give the bytes before the deadline. A reader gets EIO.
    #[error("failed to read object {id} from its source: {reason}")]
    Unavailable {
        /// What was asked for.
        id: ObjectId,
        /// The last cause, for a log line.
        reason: String,
    },
    /// No catalog of this Dataset names the object. A reader gets ESTALE.
    #[error("no catalog names object {id}")]
    Unknown {
        /// What was asked for.
        id: ObjectId,
    },
    /// The worker is about to end: its successor answers the same request. Never shown to a reader.
    #[error("the worker is stopping")]
    Stopping,
}

/// The worker of one Dataset on this node, as a driver sees it.
///
/// All methods may be called at once from any number of tasks. Dropping a future never leaves a fetch that
/// others wait for undone.
#[async_trait]
pub trait Worker: Send + Sync + 'static {
    /// The newest catalog, now and whenever there is a newer one; `None` until the first is there.
    fn catalogs(&self) -> watch::Receiver<Option<Arc<CatalogFile>>>;

    /// The tiers' directories, fastest first. They are there and stay the same for the worker's life.
    fn tiers(&self) -> Vec<TierDirectories>;

    /// Fetches a small object whole into a landing directory.
    ///
    /// # Errors
    /// The kernel view must show this very error to the reader, through its last layer.
    async fn fetch_to_landing(&self, object: ObjectRef) -> Result<LandOutcome, ReadError>;

    /// Opens what is here of an object. Never asks the source.
    async fn open_local(&self, object: ObjectRef) -> Result<LocalCopy, ReadError>;

    /// Reads `range` of an object from wherever it is.
    async fn read(&self, object: ObjectRef, stream: StreamId, range: Range<u64>) -> Result<Data, ReadError>;

    /// Says that a file is open whose reads come here, as `stream`; `complete` is its object's file, where
    /// [`open_local`](Self::open_local) has just given it. Until it is [`file_closed`](Self::file_closed), what is or comes here of the object is in use:
    /// it is not evicted. Said again of files that are open already when a driver takes over from a dead one.
    ///
    /// May be called from any thread, under locks: it must not block.
    fn file_opened(&self, object: ObjectRef, stream: StreamId, complete: Option<Arc<File>>);

    /// Says that the open file behind `stream` was closed.
    fn file_closed(&self, object: ObjectRef, stream: StreamId);

    /// Returns whether all of an object is in this node's tiers. Counts as no open.
    async fn is_complete(&self, object: ObjectRef) -> bool;

    /// Counts opens that the kernel answered alone: eviction goes by them.
    fn count_kernel_opens(&self, opens: &[OpenCount]);

    /// Says which generations views still show; the worker keeps these catalogs and the newest.
    fn retain_generations(&self, generations: &BTreeSet<Generation>);
}
