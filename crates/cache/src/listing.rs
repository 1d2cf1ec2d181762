//! Listing a source, many prefixes concurrently, as a stream of batches.
//!
//! The tree of prefixes is walked by a number of workers: each takes a prefix, reads its pages, sends their objects
//! and queues the prefixes found there for the next free worker (`frontier`). One worker lists a prefix from its
//! first page to its last, so no key occurs twice. As soon as more prefixes are queued than the workers can use,
//! each is listed as one tree; and a directory of many small ones is listed as one tree from the start, so that a
//! million directories of one file each are not a million requests (where the source can list trees: the stores
//! can, WebDAV and file systems cannot).
//!
//! Memory: a bounded queue of batches, a page for each worker, and at most [`MAX_QUEUED_PREFIXES`]; a worker that
//! finds more lists them itself, one after the other.
//!
//! A page that fails is retried until its deadline; then the listing ends with an error: there is no partial
//! listing.
//!
//! Not here: whether a key is a valid file name. An object that could never be *read* is refused here, the rest is
//! for the catalog to decide.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use millpond_core::{Time, Validator};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::metrics::OriginMetrics;
use crate::source::Source;

mod frontier;
mod pages;
mod worker;

use frontier::Frontier;
use worker::Worker;

/// Batches queued for the catalog's builder: a page each, some hundred KiB.
const QUEUED_BATCHES: usize = 16;

/// Prefixes queued for listing, of up to a KiB each.
const MAX_QUEUED_PREFIXES: usize = 16 * 1024;

/// One object that the source holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedObject {
    /// Its full key, exactly as the source spells it: it need not be a valid file name. One that ends in `/` is a
    /// directory's marker.
    pub key: String,
    /// Its size.
    pub size_bytes: u64,
    /// When it was last changed.
    pub modified: Time,
    /// The validator that a GET of it carries.
    pub validator: Validator,
}

/// One object that was left out because it could never be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its key, with what is not UTF-8 replaced.
    pub key: String,
    /// Why.
    pub reason: RefusedBecause,
}

/// Why an object was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusedBecause {
    /// The key is not UTF-8.
    NotUnicode,
    /// The client cannot request exactly this key: it holds control characters.
    CannotBeAskedFor,
    /// The source reports nothing that distinguishes this version from another, or no size.
    NoValidator,
    /// A symbolic link that leads out of the source's directory.
    LinkOutside,
    /// Neither a file nor a directory.
    Special,
}

/// A part of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Objects, in no particular order; no key occurs twice.
    pub objects: Vec<ListedObject>,
    /// Objects that were left out.
    pub refused: Vec<Refused>,
}

/// Progress of a listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ListProgress {
    /// Objects found.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects left out.
    pub refused: u64,
    /// Pages received.
    pub pages: u64,
    /// Prefixes listed to their end.
    pub prefixes_done: u64,
    /// Prefixes found and not yet done.
    pub prefixes_waiting: u64,
}

/// Why a listing failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// The source rejects the credentials, or the access.
    #[error("the source denies the listing of {prefix:?}: {reason}")]
    Denied {
        /// What was listed.
        prefix: String,
        /// The source's words.
        reason: String,
    },
    /// There is no such bucket, container or directory.
    #[error("{prefix:?} is not there: {reason}")]
    NotFound {
        /// What was listed.
        prefix: String,
        /// The source's words.
        reason: String,
    },
    /// The source cannot be listed at all.
    #[error("{prefix:?} cannot be listed: {reason}")]
    Unsupported {
        /// What was listed.
        prefix: String,
        /// Why, and what helps.
        reason: String,
    },
    /// The source did not answer correctly before the deadline.
    #[error("failed to list {prefix:?}: {reason}")]
    Unavailable {
        /// What was listed.
        prefix: String,
        /// The last cause.
        reason: String,
    },
}

/// Settings of a listing.
#[derive(Clone, Copy, Debug)]
pub struct ListOptions {
    /// Prefixes listed concurrently.
    pub workers: usize,
    /// Longest wait for one page, its retries included.
    pub page_deadline: Duration,
}

impl Default for ListOptions {
    /// Sixteen keep a source busy without being throttled; a page takes some 100 ms.
    fn default() -> Self {
        Self {
            workers: 16,
            page_deadline: Duration::from_secs(60),
        }
    }
}

/// A listing in progress. Dropping it ends it.
pub struct Listing {
    batches: mpsc::Receiver<Batch>,
    progress: watch::Receiver<ListProgress>,
    workers: JoinSet<Result<(), ListError>>,
}

impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing")
            .field("progress", &*self.progress.borrow())
            .finish_non_exhaustive()
    }
}

impl Listing {
    /// Starts to list everything below the source's prefix.
    pub fn start(source: Arc<Source>, options: ListOptions, metrics: OriginMetrics) -> Self {
        let (batch, batches) = mpsc::channel(QUEUED_BATCHES);
        let (report, progress) = watch::channel(ListProgress::default());
        let count = options.workers.max(1);
        let frontier = Arc::new(Frontier::new(source.prefix().to_owned(), MAX_QUEUED_PREFIXES));
        let report = Arc::new(report);
        let mut workers = JoinSet::new();
        for _ in 0..count {
            let worker = Worker {
                source: Arc::clone(&source),
                frontier: Arc::clone(&frontier),
                batches: batch.clone(),
                progress: Arc::clone(&report),
                metrics: metrics.clone(),
                page_deadline: options.page_deadline,
                // Each worker has some to choose from, so that none is idle while another lists a large one.
                enough_prefixes: count * 8,
                workers: count,
                wide: count * 4,
            };
            workers.spawn(worker.run());
        }
        Self {
            batches,
            progress,
            workers,
        }
    }

    /// Returns the next batch; `None` after the last one.
    ///
    /// # Errors
    /// The listing ended incomplete.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Batch>, ListError> {
        loop {
            tokio::select! {
                biased;
                Some(ended) = self.workers.join_next() => self.ended(ended)?,
                batch = self.batches.recv() => match batch {
                    Some(batch) => return Ok(Some(batch)),
                    // All workers dropped their senders: their results are in the set.
                    None => match self.workers.join_next().await {
                        Some(ended) => self.ended(ended)?,
                        None => return Ok(None),
                    },
                },
            }
        }
    }

    /// Returns the progress, now and later.
    pub fn progress(&self) -> watch::Receiver<ListProgress> {
        self.progress.clone()
    }

    fn ended(
        &mut self,
        worker: Result<Result<(), ListError>, tokio::task::JoinError>,
    ) -> Result<(), ListError> {
        let result = worker.unwrap_or_else(|panic| {
            Err(ListError::Unavailable {
                prefix: String::new(),
                reason: format!("a listing task ended: {panic}"),
            })
        });
        if result.is_err() {
            self.workers.abort_all();
        }
        result
    }
}

#[cfg(test)]
mod tests;
