//! Objects whose bytes are wrong: they are renamed so that no lookup finds them, and freed by the next eviction pass.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millpond_core::ObjectId;
use parking_lot::Mutex;
use tracing::warn;

use super::accounting::{SpaceAccounting, shard_of};
use super::directory::{TierDir, corrupt_name, name_in};
use super::eviction::EvictingObject;
use super::files::TierFiles;
use super::landing::LandingLinks;
use super::seals::Seals;

/// The corrupt objects of a tier.
#[derive(Debug)]
pub(crate) struct CorruptObjects {
    files: Arc<TierFiles>,
    accounting: Arc<SpaceAccounting>,
    landing: Arc<LandingLinks>,
    seals: Arc<Seals>,
    /// Those that wait for the next eviction pass.
    waiting: Mutex<Vec<EvictingObject>>,
    /// Number of the next corrupt object; keeps several copies of one object apart, of which the first are still open.
    next: AtomicU64,
}

impl CorruptObjects {
    pub(super) fn new(
        files: &Arc<TierFiles>,
        accounting: &Arc<SpaceAccounting>,
        landing: &Arc<LandingLinks>,
        seals: &Arc<Seals>,
    ) -> Arc<Self> {
        Arc::new(Self {
            files: Arc::clone(files),
            accounting: Arc::clone(accounting),
            landing: Arc::clone(landing),
            seals: Arc::clone(seals),
            waiting: Mutex::new(Vec::new()),
            next: AtomicU64::new(0),
        })
    }

    /// Hides an object with wrong bytes from lookups, in use or not. Its space is freed by the next eviction pass.
    pub(crate) fn quarantine(&self, id: ObjectId, size_bytes: u64) {
        let directory = self.files.directory();
        let _changing = self.accounting.changing(shard_of(id));
        let name = corrupt_name(id, self.next.fetch_add(1, Ordering::Relaxed));
        let from = name_in(TierDir::Objects, id);
        let length = directory
            .stat(TierDir::Objects, &from)
            .map_or(size_bytes, |stat| u64::try_from(stat.st_size).unwrap_or(0));
        match directory.rename((TierDir::Objects, &from), (TierDir::Objects, &name)) {
            Ok(()) => {
                self.landing.remove(id);
                self.seals.remove(&directory, id, length.max(size_bytes));
                self.files.counters().corrupt.fetch_add(1, Ordering::Relaxed);
                warn!(object = %id, "checksum mismatch in a cached object; removed, fetched again on next read");
                self.waiting
                    .lock()
                    .push(EvictingObject::corrupt(id, length, name));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.files.failed("remove a corrupt object", &error),
        }
    }

    /// Takes the objects that were quarantined since the last call.
    pub(crate) fn take(&self) -> Vec<EvictingObject> {
        std::mem::take(&mut *self.waiting.lock())
    }

    /// Returns whether there are any to take.
    pub(crate) fn has_any(&self) -> bool {
        !self.waiting.lock().is_empty()
    }
}
