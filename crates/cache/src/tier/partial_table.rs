//! Which partial objects a tier has, open or not, and the space of each.
//!
//! All readers of one object share one [`Partial`]; the first of them opens or creates it. The table's lock is held while one
//! is opened or evicted, and comes before that of the accounts; while one is created, its entry is busy instead.

use std::collections::HashMap;
use std::sync::Weak;

use millpond_core::ObjectId;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::accounting::SpaceReservation;
use super::directory::{Directory, TierDir, name_in};
use super::partial::Partial;

/// The partial objects of a tier.
#[derive(Debug, Default)]
pub(crate) struct PartialTable {
    entries: Mutex<HashMap<ObjectId, Entry>>,
    /// Signalled when a partial object was created, or failed to be.
    created: Condvar,
}

/// One partial object.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) reservation: SpaceReservation,
    pub(super) size_bytes: u64,
    pub(super) open: Weak<Partial>,
    /// Whether it is being created, and only its creator may open it.
    pub(super) busy: bool,
}

/// The entries, locked.
pub(super) type Entries<'a> = MutexGuard<'a, HashMap<ObjectId, Entry>>;

impl PartialTable {
    /// Returns whether there is a partial object.
    pub(crate) fn has(&self, id: ObjectId) -> bool {
        self.entries.lock().contains_key(&id)
    }

    /// All partial objects.
    pub(crate) fn ids(&self) -> Vec<ObjectId> {
        self.entries.lock().keys().copied().collect()
    }

    /// The length of the object of which some blocks are cached.
    pub(crate) fn size_bytes(&self, id: ObjectId) -> Option<u64> {
        self.entries.lock().get(&id).map(|entry| entry.size_bytes)
    }

    /// Removes a partial object, which is complete now; returns its space.
    pub(super) fn take(&self, id: ObjectId) -> Option<SpaceReservation> {
        self.entries.lock().remove(&id).map(|entry| entry.reservation)
    }

    /// Releases the space of those whose files were deleted.
    pub(crate) fn drop_deleted(&self, directory: &Directory) {
        self.entries.lock().retain(|id, entry| {
            entry.busy
                || entry.open.strong_count() > 0
                || directory
                    .stat(TierDir::Partial, &name_in(TierDir::Partial, *id))
                    .is_some()
        });
    }

    pub(super) fn lock(&self) -> Entries<'_> {
        self.entries.lock()
    }

    /// Locks the entries, as soon as the object is not being created.
    pub(super) fn lock_when_created(&self, id: ObjectId) -> Entries<'_> {
        let mut entries = self.entries.lock();
        while entries.get(&id).is_some_and(|entry| entry.busy) {
            self.created.wait(&mut entries);
        }
        entries
    }

    /// Wakes the threads that wait in [`lock_when_created`](Self::lock_when_created).
    pub(super) fn notify_created(&self) {
        self.created.notify_all();
    }
}
