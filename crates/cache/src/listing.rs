//! Listing a source, many prefixes at once, as a stream of batches.
//!
//! The tree of prefixes is walked by a number of workers: each takes a prefix, reads its pages, hands over
//! their objects and leaves the prefixes found there to whoever is free (`frontier`). A prefix is in
//! the hands of one worker, from its first page to its last, so no key comes twice. As soon as there are more
//! prefixes than workers can make use of, each is listed as a whole tree; and a directory of many small ones is
//! listed as one tree from the start, so that a million directories of one file each are not a million requests
//! (where the source can list trees: the stores can, WebDAV and file systems cannot).
//!
//! Memory: a bounded queue of batches, a page for each worker, and the prefixes that wait: at most
//! [`MOST_WAITING`]; a worker that finds more lists them itself, one after the other.
//!
//! A page that does not come is asked for again until its deadline; then the listing is over, with an error: half
//! a listing is none.
//!
//! Not here: whether a key is a good file name. What could never be *read* is refused here, the rest is the
//! catalog's to judge.

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

/// Batches that wait for whoever builds the catalog: a page each, some hundred KiB.
const QUEUE: usize = 16;

/// Prefixes that wait to be listed, of up to a KiB each.
const MOST_WAITING: usize = 16 * 1024;

/// One object that the source holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its whole key, exactly as the source spells it: it need not be a good file name. One that ends in `/`
    /// is a directory's marker.
    pub key: String,
    /// Its size.
    pub size_bytes: u64,
    /// When it was last changed.
    pub modified: Time,
    /// What a GET of it must carry.
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
    /// The source cannot be asked for exactly this key again: it holds control characters.
    CannotBeAskedFor,
    /// The source says nothing that tells this version from another, or no size.
    NoValidator,
    /// A symbolic link that leads out of the source's directory.
    LinkOutside,
    /// Neither a file nor a directory.
    Special,
}

/// A part of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Objects, in no particular order; no key comes twice.
    pub objects: Vec<Listed>,
    /// What was left out.
    pub refused: Vec<Refused>,
}

/// How far a listing is.
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
    /// Prefixes known and not yet done.
    pub prefixes_waiting: u64,
}

/// Why a listing did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// The source knows us and says no, or does not know us.
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
    /// The source did not answer well before the deadline.
    #[error("failed to list {prefix:?}: {reason}")]
    Unavailable {
        /// What was listed.
        prefix: String,
        /// The last cause.
        reason: String,
    },
}

/// How a listing is done.
#[derive(Clone, Copy, Debug)]
pub struct ListOptions {
    /// Prefixes listed at once.
    pub workers: usize,
    /// Longest wait for one page, its retries included.
    pub page_deadline: Duration,
}

impl Default for ListOptions {
    /// Sixteen keep a source busy without being told to slow down; a page takes some 100 ms.
    fn default() -> Self {
        Self {
            workers: 16,
            page_deadline: Duration::from_secs(60),
        }
    }
}

/// A listing under way. Dropping it ends it.
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
        let (batch, batches) = mpsc::channel(QUEUE);
        let (report, progress) = watch::channel(ListProgress::default());
        let count = options.workers.max(1);
        let frontier = Arc::new(Frontier::new(source.prefix().to_owned(), MOST_WAITING));
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
                // Each worker has some to choose from, so that none is idle while another has a large one.
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

    /// The next batch; `None` when all were given.
    ///
    /// # Errors
    /// The listing is over and incomplete.
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
                    // All workers let go of the queue: what they have to say is in the set.
                    None => match self.workers.join_next().await {
                        Some(ended) => self.ended(ended)?,
                        None => return Ok(None),
                    },
                },
            }
        }
    }

    /// How far it is, now and later.
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
                reason: format!("a worker ended: {panic}"),
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
