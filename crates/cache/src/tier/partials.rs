//! Which objects a tier has some blocks of, open or not, and the room of each.
//!
//! All who read one at the same time share one [`Partial`]; whoever comes first opens or makes it. One that nobody has open can
//! be evicted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io;
use std::sync::{Arc, Weak};

use millpond_core::ObjectId;
use parking_lot::{Condvar, Mutex};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::accounting::{SpaceReservation, shard_of};
use super::costs::DiskSpace;
use super::directory::{Directory, Place, name_in};
use super::error::NotStored;
use super::io::write_lease;
use super::partial::{Files, Partial};
use super::{Tier, seal};

/// The partial objects of a tier.
#[derive(Debug, Default)]
pub(crate) struct Partials {
    held: Mutex<HashMap<ObjectId, Held>>,
    /// One that was being made is there, or will not be.
    made: Condvar,
}

#[derive(Debug)]
struct Held {
    promise: SpaceReservation,
    size_bytes: u64,
    open: Weak<Partial>,
    /// Where it is being opened or made, nobody else may.
    busy: bool,
}

impl Partials {
    /// Whether there is a partial object.
    pub(crate) fn has(&self, id: ObjectId) -> bool {
        self.held.lock().contains_key(&id)
    }

    /// All partial objects.
    pub(crate) fn ids(&self) -> Vec<ObjectId> {
        self.held.lock().keys().copied().collect()
    }

    /// Forgets a partial object, which is one no longer; its room.
    pub(super) fn take(&self, id: ObjectId) -> Option<SpaceReservation> {
        self.held.lock().remove(&id).map(|held| held.promise)
    }

    /// How long the object is of which some blocks are here.
    pub(crate) fn size_bytes(&self, id: ObjectId) -> Option<u64> {
        self.held.lock().get(&id).map(|held| held.size_bytes)
    }

    /// Gives back the room of those whose files were deleted.
    pub(crate) fn forget_deleted(&self, directory: &Directory) {
        self.held.lock().retain(|id, held| {
            held.busy
                || held.open.strong_count() > 0
                || directory
                    .stat(Place::Partial, &name_in(Place::Partial, *id))
                    .is_some()
        });
    }
}

/// What became of an attempt to evict a partial object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PartialEviction {
    /// Its space is free.
    Freed(DiskSpace),
    /// It is gone; its space will be free in a moment.
    Lingers(DiskSpace),
    /// Somebody has it open or mapped.
    InUse,
}

impl Tier {
    /// Removes a partial object that nobody has open or mapped.
    pub(crate) fn evict_partial(&self, id: ObjectId) -> PartialEviction {
        // Held all along: nobody may open it meanwhile, or make it anew before its files are gone.
        let mut held = self.partials().held.lock();
        let Some(known) = held.get(&id) else {
            return PartialEviction::InUse;
        };
        if known.busy || known.open.strong_count() > 0 {
            return PartialEviction::InUse;
        }
        let cost = self.ledger().costs().partial(known.size_bytes);
        let (directory, name) = (self.directory(), name_in(Place::Partial, id));
        let Ok(file) = directory.open(Place::Partial, &name) else {
            return PartialEviction::InUse;
        };
        if file.as_ref().is_some_and(|file| !write_lease(file))
            || directory.remove(Place::Partial, &name).is_err()
        {
            return PartialEviction::InUse;
        }
        directory.remove(Place::Seals, &name_in(Place::Seals, id)).ok();
        let removed = held.remove(&id);
        drop(held);
        let is_free = match (file, removed) {
            (Some(file), Some(removed)) => self.unlinked(file, removed.promise),
            _ => true,
        };
        if is_free {
            PartialEviction::Freed(cost)
        } else {
            PartialEviction::Lingers(cost)
        }
    }

    /// Removes a partial object unless somebody has it open; whether there is none now.
    pub(crate) fn evict_if_idle(&self, id: ObjectId) -> bool {
        !self.partials().has(id) || self.evict_partial(id) != PartialEviction::InUse
    }

    /// Finds the partial objects that are at rest in the directory.
    pub(super) fn count_partials(&self, directory: &Directory) -> io::Result<Vec<(ObjectId, u64)>> {
        let mut counted = Vec::new();
        for (name, _) in directory.list(Place::Partial, ".")? {
            let name = String::from_utf8_lossy(&name).into_owned();
            let size_bytes = directory
                .stat(Place::Partial, &name)
                .and_then(|stat| u64::try_from(stat.st_size).ok());
            let (Ok(id), Some(size_bytes)) = (name.parse::<ObjectId>(), size_bytes) else {
                directory.remove(Place::Partial, &name)?;
                continue;
            };
            if open_partial(directory, id, size_bytes)?.is_none() {
                directory.remove(Place::Partial, &name)?;
                continue;
            }
            let promise = self.ledger().count_partial(id, size_bytes);
            let held = Held {
                promise,
                size_bytes,
                open: Weak::new(),
                busy: false,
            };
            self.partials().held.lock().insert(id, held);
            counted.push((id, size_bytes));
        }
        Ok(counted)
    }

    /// Opens a partial object that is here, or one that came whole through a crash of the machine.
    pub(crate) fn existing_partial(self: &Arc<Self>, id: ObjectId, size_bytes: u64) -> Option<Arc<Partial>> {
        let mut held = self.partials().held.lock();
        while held.get(&id).is_some_and(|held| held.busy) {
            self.partials().made.wait(&mut held);
        }
        if let Some(open) = held.get(&id).and_then(|held| held.open.upgrade()) {
            return (open.size_bytes() == size_bytes).then_some(open);
        }
        if let Entry::Vacant(vacant) = held.entry(id) {
            let promise = self.reopen_unverified(id, size_bytes)?;
            vacant.insert(Held {
                promise,
                size_bytes,
                open: Weak::new(),
                busy: false,
            });
        }
        match self.open_files(id, size_bytes) {
            Ok(Some(partial)) => {
                let partial = Arc::new(partial);
                if let Some(held) = held.get_mut(&id) {
                    held.open = Arc::downgrade(&partial);
                }
                Some(partial)
            }
            Ok(None) => {
                let directory = self.directory();
                directory
                    .remove(Place::Partial, &name_in(Place::Partial, id))
                    .ok();
                directory.remove(Place::Seals, &name_in(Place::Seals, id)).ok();
                held.remove(&id);
                None
            }
            Err(error) => {
                drop(held);
                self.failed("open a partial object", &error);
                None
            }
        }
    }

    /// A large object that came through a crash becomes a partial one, of which no block was verified yet.
    fn reopen_unverified(&self, id: ObjectId, size_bytes: u64) -> Option<SpaceReservation> {
        if !self.is_any_unverified() || !self.ledger().costs().seal_is_file(size_bytes) {
            return None;
        }
        let directory = self.directory();
        let (from, to) = (name_in(Place::Unverified, id), name_in(Place::Partial, id));
        let found_bytes = directory.stat(Place::Unverified, &from).map(|stat| stat.st_size);
        if found_bytes != i64::try_from(size_bytes).ok() {
            return None;
        }
        let _changing = self.ledger().changing(shard_of(id));
        match directory.rename((Place::Unverified, &from), (Place::Partial, &to)) {
            Ok(()) => Some(self.ledger().reopen(id, size_bytes)),
            Err(_gone) => None,
        }
    }

    /// Makes a partial object without blocks.
    pub(crate) fn new_partial(
        self: &Arc<Self>,
        promise: SpaceReservation,
        id: ObjectId,
        size_bytes: u64,
    ) -> Result<Arc<Partial>, NotStored> {
        let mut held = self.partials().held.lock();
        if held.contains_key(&id) {
            drop(held);
            return self.existing_partial(id, size_bytes).ok_or(NotStored::Full);
        }
        held.insert(
            id,
            Held {
                promise,
                size_bytes,
                open: Weak::new(),
                busy: true,
            },
        );
        drop(held);
        let (partial, seals) = (name_in(Place::Partial, id), name_in(Place::Seals, id));
        let made = self.writing("make a partial object", |directory| {
            let _only = self.sealing.lock();
            directory.remove(Place::Partial, &partial)?;
            directory.remove(Place::Seals, &seals)?;
            // The map first: data without a map are removed at the next start, a map without data likewise.
            seal::begin_file(&directory.create(Place::Seals, &seals)?, size_bytes)?;
            allocate(&directory.create(Place::Partial, &partial)?, size_bytes)
        });
        let opened = made.and_then(|()| {
            self.open_files(id, size_bytes)
                .inspect_err(|error| self.failed("open a partial object", error))
                .ok()
                .flatten()
                .ok_or(NotStored::Failed)
        });
        let mut held = self.partials().held.lock();
        match opened {
            Ok(partial) => {
                let partial = Arc::new(partial);
                if let Some(held) = held.get_mut(&id) {
                    held.promise.written();
                    held.open = Arc::downgrade(&partial);
                    held.busy = false;
                }
                drop(held);
                self.partials().made.notify_all();
                self.order_insert(id, self.ledger().costs().partial(size_bytes));
                Ok(partial)
            }
            Err(no_room) => {
                let directory = self.directory();
                directory.remove(Place::Partial, &partial).ok();
                directory.remove(Place::Seals, &seals).ok();
                held.remove(&id);
                drop(held);
                self.partials().made.notify_all();
                Err(no_room)
            }
        }
    }

    fn open_files(self: &Arc<Self>, id: ObjectId, size_bytes: u64) -> io::Result<Option<Partial>> {
        let directory = self.directory();
        let Some(files) = open_partial(&directory, id, size_bytes)? else {
            return Ok(None);
        };
        let Some(reader) = directory.open(Place::Partial, &name_in(Place::Partial, id))? else {
            return Ok(None);
        };
        let Some(entries) = seal::read_file(&files.map, size_bytes)? else {
            return Ok(None);
        };
        Ok(Some(Partial::new(self, id, size_bytes, files, reader, entries)))
    }

    /// A complete object in the shape of a partial one that misses nothing.
    pub(crate) fn complete_partial(
        self: &Arc<Self>,
        id: ObjectId,
        size_bytes: u64,
        file: File,
    ) -> Arc<Partial> {
        Arc::new(Partial::whole(self, id, size_bytes, file))
    }
}

/// Opens the data and the map of a partial object that fit each other.
fn open_partial(directory: &Directory, id: ObjectId, size_bytes: u64) -> io::Result<Option<Files>> {
    let data = directory.open_writable(Place::Partial, &name_in(Place::Partial, id))?;
    let map = directory.open_writable(Place::Seals, &name_in(Place::Seals, id))?;
    let (Some(data), Some(map)) = (data, map) else {
        return Ok(None);
    };
    let fits = data.metadata()?.len() == size_bytes && map.metadata()?.len() == seal::file_bytes(size_bytes);
    Ok(fits.then_some(Files { data, map }))
}

/// Gives a new file all its blocks now, so that later writes into it cannot fail for space.
fn allocate(file: &File, size_bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, size_bytes) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => file.set_len(size_bytes),
        Err(error) => Err(error.into()),
    }
}
