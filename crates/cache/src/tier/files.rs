//! The directory that all parts of a tier work on, and the failures of its file system.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use millpond_core::ObjectId;
use tracing::{info, warn};

use super::counters::Counters;
use super::directory::{Directory, TierDir, name_in};

/// The directory of a tier, which is another one after it was recreated.
#[derive(Debug)]
pub(crate) struct TierFiles {
    directory: ArcSwap<Directory>,
    counters: Arc<Counters>,
    /// Whether the last write failed, and was logged.
    failing: AtomicBool,
}

impl TierFiles {
    pub(super) fn new(directory: Directory, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self {
            directory: ArcSwap::from_pointee(directory),
            counters,
            failing: AtomicBool::new(false),
        })
    }

    pub(crate) fn directory(&self) -> Arc<Directory> {
        self.directory.load_full()
    }

    /// Replaces the directory by one that was recreated.
    pub(super) fn replace(&self, directory: Directory) {
        self.directory.store(Arc::new(directory));
    }

    /// Returns whether an object is complete and verified.
    pub(crate) fn has_object(&self, id: ObjectId) -> bool {
        self.directory()
            .stat(TierDir::Objects, &name_in(TierDir::Objects, id))
            .is_some()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Counts a failure of the file system, and logs the first of a row.
    pub(crate) fn failed(&self, doing: &'static str, error: &io::Error) {
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        if !self.failing.swap(true, Ordering::Relaxed) {
            let path = self.directory().path().display().to_string();
            warn!(path, doing, %error, "cache directory failed; new objects bypass the cache");
        }
    }

    /// Logs the first success after a failure.
    pub(super) fn succeeded(&self) {
        if self.failing.swap(false, Ordering::Relaxed) {
            info!(path = %self.directory().path().display(), "cache directory writable again; caching resumed");
        }
    }
}
