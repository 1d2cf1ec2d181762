//! Partial objects in a tier: how they are created, opened, published and evicted.
//!
//! One that no reader has open can be evicted. All of this blocks on the file system.

use std::collections::hash_map::Entry as MapEntry;
use std::fs::File;
use std::io;
use std::sync::{Arc, Weak};

use millpond_core::ObjectId;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::accounting::{SpaceAccounting, SpaceReservation, shard_of};
use super::costs::DiskSpace;
use super::directory::{Directory, TierDir, name_in};
use super::error::NotStored;
use super::eviction_queue::QueueSlot;
use super::files::TierFiles;
use super::io::write_lease;
use super::partial::{Files, Partial};
use super::partial_table::{Entry, PartialTable};
use super::seal;
use super::seals::Seals;
use super::state::Epoch;
use super::unlinked::UnlinkedFiles;
use super::unverified::UnverifiedObjects;
use super::writer::DirectoryWriter;

/// Outcome of an attempt to evict a partial object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PartialEviction {
    /// Its space is free.
    Freed(DiskSpace),
    /// It is unlinked; its space is free when the kernel drops its last reference.
    FreePending(DiskSpace),
    /// A process has it open or mapped.
    InUse,
}

/// The partial objects of a tier.
#[derive(Debug)]
pub(crate) struct Partials {
    pub(super) table: Arc<PartialTable>,
    pub(super) files: Arc<TierFiles>,
    pub(super) accounting: Arc<SpaceAccounting>,
    pub(super) queue: Arc<QueueSlot>,
    pub(super) writer: Arc<DirectoryWriter>,
    pub(super) seals: Arc<Seals>,
    pub(super) unlinked: Arc<UnlinkedFiles>,
    pub(super) unverified: Arc<UnverifiedObjects>,
    pub(super) epoch: Epoch,
}

impl Partials {
    /// Which there are.
    pub(crate) fn table(&self) -> &PartialTable {
        &self.table
    }

    pub(super) fn files(&self) -> &TierFiles {
        &self.files
    }

    pub(super) const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Removes a partial object that no process has open or mapped.
    pub(crate) fn evict(&self, id: ObjectId) -> PartialEviction {
        // Held all along: no thread may open it meanwhile, or create it again before its files are removed.
        let mut entries = self.table.lock();
        let Some(known) = entries.get(&id) else {
            return PartialEviction::InUse;
        };
        if known.busy || known.open.strong_count() > 0 {
            return PartialEviction::InUse;
        }
        let cost = self.accounting.costs().partial(known.size_bytes);
        let (directory, name) = (self.files.directory(), name_in(TierDir::Partial, id));
        let Ok(file) = directory.open(TierDir::Partial, &name) else {
            return PartialEviction::InUse;
        };
        if file.as_ref().is_some_and(|file| !write_lease(file))
            || directory.remove(TierDir::Partial, &name).is_err()
        {
            return PartialEviction::InUse;
        }
        directory
            .remove(TierDir::Seals, &name_in(TierDir::Seals, id))
            .ok();
        let removed = entries.remove(&id);
        drop(entries);
        let is_free = match (file, removed) {
            (Some(file), Some(removed)) => self.unlinked.release(file, removed.reservation),
            _ => true,
        };
        if is_free {
            PartialEviction::Freed(cost)
        } else {
            PartialEviction::FreePending(cost)
        }
    }

    /// Removes a partial object unless a process has it open; returns whether there is none now.
    pub(super) fn evict_if_idle(&self, id: ObjectId) -> bool {
        !self.table.has(id) || self.evict(id) != PartialEviction::InUse
    }

    /// Finds the partial objects in the directory, of which none is open yet.
    pub(super) fn scan(&self, directory: &Directory) -> io::Result<Vec<(ObjectId, u64)>> {
        let mut scanned = Vec::new();
        for (name, _) in directory.list(TierDir::Partial, ".")? {
            let name = String::from_utf8_lossy(&name).into_owned();
            let size_bytes = directory
                .stat(TierDir::Partial, &name)
                .and_then(|stat| u64::try_from(stat.st_size).ok());
            let (Ok(id), Some(size_bytes)) = (name.parse::<ObjectId>(), size_bytes) else {
                directory.remove(TierDir::Partial, &name)?;
                continue;
            };
            if open_writable(directory, id, size_bytes)?.is_none() {
                directory.remove(TierDir::Partial, &name)?;
                continue;
            }
            let reservation = self.accounting.count_partial(id, size_bytes);
            self.table.lock().insert(id, idle(reservation, size_bytes));
            scanned.push((id, size_bytes));
        }
        Ok(scanned)
    }

    /// Opens a partial object, or a large one that survived a crash of the machine.
    pub(crate) fn open(self: &Arc<Self>, id: ObjectId, size_bytes: u64) -> Option<Arc<Partial>> {
        let mut entries = self.table.lock_when_created(id);
        if let Some(open) = entries.get(&id).and_then(|entry| entry.open.upgrade()) {
            return (open.size_bytes() == size_bytes).then_some(open);
        }
        if let MapEntry::Vacant(vacant) = entries.entry(id) {
            let reservation = self.unverified.reopen_as_partial(id, size_bytes)?;
            vacant.insert(idle(reservation, size_bytes));
        }
        match self.open_files(id, size_bytes) {
            Ok(Some(partial)) => {
                let partial = Arc::new(partial);
                if let Some(entry) = entries.get_mut(&id) {
                    entry.open = Arc::downgrade(&partial);
                }
                Some(partial)
            }
            Ok(None) => {
                let directory = self.files.directory();
                directory
                    .remove(TierDir::Partial, &name_in(TierDir::Partial, id))
                    .ok();
                directory
                    .remove(TierDir::Seals, &name_in(TierDir::Seals, id))
                    .ok();
                entries.remove(&id);
                None
            }
            Err(error) => {
                drop(entries);
                self.files.failed("open a partial object", &error);
                None
            }
        }
    }

    /// Creates a partial object without blocks.
    pub(crate) fn create(
        self: &Arc<Self>,
        reservation: SpaceReservation,
        id: ObjectId,
        size_bytes: u64,
    ) -> Result<Arc<Partial>, NotStored> {
        let mut entries = self.table.lock();
        if entries.contains_key(&id) {
            drop(entries);
            return self.open(id, size_bytes).ok_or(NotStored::Full);
        }
        entries.insert(
            id,
            Entry {
                busy: true,
                ..idle(reservation, size_bytes)
            },
        );
        drop(entries);
        let (partial, seals) = (name_in(TierDir::Partial, id), name_in(TierDir::Seals, id));
        let created = self.writer.write("create a partial object", |directory| {
            let _only = self.seals.lock();
            directory.remove(TierDir::Partial, &partial)?;
            directory.remove(TierDir::Seals, &seals)?;
            // The map first: data without a map are removed at the next start, and so is a map without data.
            seal::begin_file(&directory.create(TierDir::Seals, &seals)?, size_bytes)?;
            allocate(&directory.create(TierDir::Partial, &partial)?, size_bytes)
        });
        let opened = created.and_then(|()| {
            self.open_files(id, size_bytes)
                .inspect_err(|error| self.files.failed("open a partial object", error))
                .ok()
                .flatten()
                .ok_or(NotStored::Failed)
        });
        let mut entries = self.table.lock();
        match opened {
            Ok(partial) => {
                let partial = Arc::new(partial);
                if let Some(entry) = entries.get_mut(&id) {
                    entry.reservation.written();
                    entry.open = Arc::downgrade(&partial);
                    entry.busy = false;
                }
                drop(entries);
                self.table.notify_created();
                self.queue.insert(id, self.accounting.costs().partial(size_bytes));
                Ok(partial)
            }
            Err(not_stored) => {
                let directory = self.files.directory();
                directory.remove(TierDir::Partial, &partial).ok();
                directory.remove(TierDir::Seals, &seals).ok();
                entries.remove(&id);
                drop(entries);
                self.table.notify_created();
                Err(not_stored)
            }
        }
    }

    fn open_files(self: &Arc<Self>, id: ObjectId, size_bytes: u64) -> io::Result<Option<Partial>> {
        let directory = self.files.directory();
        let Some(files) = open_writable(&directory, id, size_bytes)? else {
            return Ok(None);
        };
        let Some(reader) = directory.open(TierDir::Partial, &name_in(TierDir::Partial, id))? else {
            return Ok(None);
        };
        let Some(entries) = seal::read_file(&files.map, size_bytes)? else {
            return Ok(None);
        };
        Ok(Some(Partial::new(self, id, size_bytes, files, reader, entries)))
    }

    /// Returns a complete object as a partial one that misses no block.
    pub(crate) fn complete(self: &Arc<Self>, id: ObjectId, size_bytes: u64, file: File) -> Arc<Partial> {
        Arc::new(Partial::of_complete(self, id, size_bytes, file))
    }

    /// Renames a partial object without missing blocks into `objects/`. It is the same inode, so that maps and descriptors of
    /// it stay right.
    pub(super) fn publish(&self, partial: &Partial) -> Result<(), NotStored> {
        let (id, size_bytes) = (partial.id(), partial.size_bytes());
        let seal_is_file = self.accounting.costs().seal_is_file(size_bytes);
        if !seal_is_file {
            let value = seal::to_xattr(&partial.crcs());
            let set = rustix::fs::fsetxattr(
                &**partial.reader(),
                seal::SEAL_XATTR,
                &value,
                rustix::fs::XattrFlags::empty(),
            );
            if let Err(error) = set {
                self.files.failed("seal an object", &error.into());
                return Err(NotStored::Failed);
            }
        }
        let changing = self.accounting.changing(shard_of(id));
        let (from, to) = (name_in(TierDir::Partial, id), name_in(TierDir::Objects, id));
        let is_new = self.writer.write("publish an object", |directory| {
            directory.rename_new((TierDir::Partial, &from), (TierDir::Objects, &to))
        })?;
        let directory = self.files.directory();
        if !is_new {
            directory.remove(TierDir::Partial, &from).ok();
        }
        if !seal_is_file {
            directory
                .remove(TierDir::Seals, &name_in(TierDir::Seals, id))
                .ok();
        }
        match self.table.take(id) {
            Some(reservation) if is_new => reservation.publish(size_bytes),
            Some(reservation) => partial.keep_duplicate(reservation),
            None => {}
        }
        drop(changing);
        self.queue.insert(id, self.accounting.costs().object(size_bytes));
        Ok(())
    }
}

/// The entry of a partial object that is not open.
fn idle(reservation: SpaceReservation, size_bytes: u64) -> Entry {
    Entry {
        reservation,
        size_bytes,
        open: Weak::new(),
        busy: false,
    }
}

/// Opens the data and the map of a partial object that fit each other.
fn open_writable(directory: &Directory, id: ObjectId, size_bytes: u64) -> io::Result<Option<Files>> {
    let data = directory.open_writable(TierDir::Partial, &name_in(TierDir::Partial, id))?;
    let map = directory.open_writable(TierDir::Seals, &name_in(TierDir::Seals, id))?;
    let (Some(data), Some(map)) = (data, map) else {
        return Ok(None);
    };
    let fits = data.metadata()?.len() == size_bytes && map.metadata()?.len() == seal::file_bytes(size_bytes);
    Ok(fits.then_some(Files { data, map }))
}

/// Allocates all blocks of a new file, so that later writes into it cannot fail for space.
fn allocate(file: &File, size_bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, size_bytes) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => file.set_len(size_bytes),
        Err(error) => Err(error.into()),
    }
}
