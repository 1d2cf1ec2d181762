//! Complete objects in a tier: how they come in, are opened, verified, hidden and removed.
//!
//! All of this blocks on the file system.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use millpond_core::ObjectId;
use tracing::warn;

use super::Tier;
use super::accounting::{SpaceReservation, shard_of};
use super::costs::DiskSpace;
use super::directory::{Directory, Place, corrupt_name, evicting_name, name_in};
use super::error::NotStored;
use super::io::write_lease;
use super::seal::{self, BlockCrc};

/// An object that no new lookup finds, and whose space is not free yet.
#[derive(Debug)]
pub(crate) struct EvictingObject {
    pub(crate) id: ObjectId,
    pub(crate) size_bytes: u64,
    place: Place,
    name: String,
    /// Whether it may go back to its place when it turns out to be in use.
    may_return: bool,
}

impl EvictingObject {
    /// Whether its bytes were found to be wrong.
    pub(crate) fn is_condemned(&self) -> bool {
        self.place == Place::Objects && !self.may_return
    }
}

/// What became of an attempt to hide an object.
#[derive(Debug)]
pub(crate) enum EvictionStart {
    /// It is hidden.
    Hidden(EvictingObject),
    /// Somebody has it open or mapped.
    InUse,
    /// It is not here.
    Gone,
}

/// What became of an attempt to free a hidden object's space.
#[derive(Debug)]
pub(crate) enum EvictionEnd {
    /// The space is free.
    Freed(DiskSpace),
    /// The object is gone; its space will be free in a moment.
    FreePending(DiskSpace),
    /// It came into use meanwhile and is back in its place.
    Cancelled(ObjectId, DiskSpace),
    /// It is in use and cannot go back.
    InUse(EvictingObject),
}

impl Tier {
    /// Whether an object is complete and verified.
    pub(crate) fn has(&self, id: ObjectId) -> bool {
        self.directory()
            .stat(Place::Objects, &name_in(Place::Objects, id))
            .is_some()
    }

    /// Opens an object that is complete and verified.
    pub(crate) fn open_object(&self, id: ObjectId, size_bytes: u64) -> Option<File> {
        let file = match self
            .directory()
            .open(Place::Objects, &name_in(Place::Objects, id))
        {
            Ok(found) => found?,
            Err(error) => {
                self.failed("open an object", &error);
                return None;
            }
        };
        if file.metadata().is_ok_and(|metadata| metadata.len() == size_bytes) {
            if let Some(order) = self.order() {
                order.touch(id);
            }
            return Some(file);
        }
        drop(file);
        self.quarantine(id, size_bytes);
        None
    }

    /// Writes a whole object and gives it its names.
    pub(crate) fn put(
        &self,
        promise: SpaceReservation,
        id: ObjectId,
        size_bytes: u64,
        content: &[Bytes],
    ) -> Result<(), NotStored> {
        if content.iter().map(|chunk| chunk.len() as u64).sum::<u64>() != size_bytes {
            let error = std::io::Error::other("content is not as long as its room");
            self.failed("keep an object", &error);
            return Err(NotStored::Failed);
        }
        let crcs = seal::of_content(content);
        let seal_is_file = self.ledger().costs().seal_is_file(size_bytes);
        if !self.evict_if_idle(id) && seal_is_file {
            // Its map is where this object's seal would go. Its blocks are being kept one by one anyway.
            return Err(NotStored::Full);
        }
        let directory_before = self.directory();
        let changing = self.ledger().changing(shard_of(id));
        let is_new = self.writing("keep an object", |directory| {
            let xattr = (!seal_is_file).then(|| seal::to_xattr(&crcs));
            let temporary = directory.write_temporary(content, xattr.as_deref())?;
            let published = self.publish_temporary(
                directory,
                id,
                size_bytes,
                &temporary,
                seal_is_file.then_some(&crcs),
            );
            if published.is_err() {
                directory.remove(Place::Temporary, &temporary).ok();
            }
            published
        })?;
        if is_new {
            promise.publish(size_bytes);
            self.order_insert(id, self.ledger().costs().object(size_bytes));
        }
        drop(changing);
        // The shard was changing when all were counted again for a deleted directory: it was left out.
        if !Arc::ptr_eq(&directory_before, &self.directory())
            && let Err(error) = self.rescan_shard(shard_of(id))
        {
            self.failed("count objects", &error);
        }
        self.remember_landing(id);
        Ok(())
    }

    /// Links an object that is complete and verified into `landing/`; whether it is there now.
    ///
    /// The link takes no room of its own: the promise that the object came by covers both of its names.
    pub(crate) fn land(&self, id: ObjectId) -> bool {
        match self.directory().link(
            (Place::Objects, &name_in(Place::Objects, id)),
            (Place::Landing, &name_in(Place::Landing, id)),
        ) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return false,
            Err(error) => {
                self.failed("land an object", &error);
                return false;
            }
        }
        if !self.has(id) {
            // Evicted between the kernel's look at the old name and its making of the new one.
            self.remove_landing_link(id);
            return false;
        }
        self.remember_landing(id);
        if let Some(order) = self.order() {
            order.touch(id);
        }
        true
    }

    fn remember_landing(&self, id: ObjectId) {
        if let Some(early) = self.landing().landed(id, Instant::now()) {
            self.remove_landing_link(early);
        }
    }

    /// Names a written file in `objects/` and `landing/`; whether the object was new.
    fn publish_temporary(
        &self,
        directory: &Directory,
        id: ObjectId,
        size_bytes: u64,
        temporary: &str,
        crcs: Option<&Vec<BlockCrc>>,
    ) -> std::io::Result<bool> {
        let (objects, landing) = (name_in(Place::Objects, id), name_in(Place::Landing, id));
        let sealing = crcs.map(|_| self.sealing.lock());
        if let Some(crcs) = crcs {
            // The number keeps two writers of one object apart.
            let name = format!("seal{:x}", self.names.fetch_add(1, Ordering::Relaxed));
            let file = directory.create(Place::Temporary, &name)?;
            seal::write_file(&file, size_bytes, crcs, self.epoch())
                .and_then(|()| {
                    directory.rename(
                        (Place::Temporary, &name),
                        (Place::Seals, &name_in(Place::Seals, id)),
                    )
                })
                .inspect_err(|_| {
                    directory.remove(Place::Temporary, &name).ok();
                })?;
        }
        let is_new = directory.link((Place::Temporary, temporary), (Place::Objects, &objects))?;
        drop(sealing);
        if is_new {
            directory.rename((Place::Temporary, temporary), (Place::Landing, &landing))?;
            // A rename of one link over another of the same file does nothing, and leaves both.
            directory.remove(Place::Temporary, temporary)?;
        } else {
            directory.remove(Place::Temporary, temporary)?;
            match directory.link((Place::Objects, &objects), (Place::Landing, &landing)) {
                // Evicted in the last moment: its readers are served through.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && !self.has(id) => {}
                linked => drop(linked?),
            }
        }
        Ok(is_new)
    }

    /// Removes a link in `landing/`.
    pub(crate) fn remove_landing_link(&self, id: ObjectId) {
        if let Err(error) = self
            .directory()
            .remove(Place::Landing, &name_in(Place::Landing, id))
        {
            self.failed("remove a landing link", &error);
        }
    }

    /// The sealed checksums of an object, or `None` where there are none that fit it.
    pub(crate) fn seal_of(&self, file: &File, id: ObjectId, size_bytes: u64) -> Option<Vec<BlockCrc>> {
        if !self.ledger().costs().seal_is_file(size_bytes) {
            return seal::from_xattr(&Directory::xattr(file)?, size_bytes);
        }
        let map = self
            .directory()
            .open(Place::Seals, &name_in(Place::Seals, id))
            .ok()??;
        let entries = seal::read_file(&map, size_bytes).ok()??;
        entries
            .into_iter()
            .map(|entry| entry.epoch.map(|_| entry.crc))
            .collect()
    }

    /// Verifies a small object that came through a crash and, if it is right, puts it back among the others.
    pub(crate) fn verify(&self, id: ObjectId, size_bytes: u64) -> Option<File> {
        if !self.unverified.load(Ordering::Relaxed) || self.ledger().costs().seal_is_file(size_bytes) {
            return None;
        }
        let directory = self.directory();
        let (from, to) = (name_in(Place::Unverified, id), name_in(Place::Objects, id));
        let file = directory.open(Place::Unverified, &from).ok()??;
        let found_bytes = file.metadata().ok()?.len();
        let mut buffer = Vec::new();
        let is_right = found_bytes == size_bytes
            && self.seal_of(&file, id, size_bytes).is_some_and(|crcs| {
                crcs.iter().zip(0..).all(|(crc, index)| {
                    seal::block_is_right(&file, size_bytes, index, *crc, &mut buffer).unwrap_or(false)
                })
            });
        let _changing = self.ledger().changing(shard_of(id));
        if is_right {
            match directory.rename_new((Place::Unverified, &from), (Place::Objects, &to)) {
                Ok(true) => {
                    self.counters().verified_objects.fetch_add(1, Ordering::Relaxed);
                    return Some(file);
                }
                Ok(false) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    // It stays where it is, to be verified another time.
                    self.failed("put back a verified object", &error);
                    return None;
                }
            }
            // Somebody else was faster, or it was fetched again meanwhile.
            if directory.remove(Place::Unverified, &from).unwrap_or(false) {
                self.unlinked(file, self.ledger().reopen(id, found_bytes));
            }
            return self.open_object(id, size_bytes);
        }
        if directory.remove(Place::Unverified, &from).unwrap_or(false) {
            self.counters().corrupt.fetch_add(1, Ordering::Relaxed);
            warn!(%id, "an object did not come through the crash whole, it will be fetched again");
            self.remove_seal(&directory, id, found_bytes);
            self.unlinked(file, self.ledger().reopen(id, found_bytes));
        }
        None
    }

    /// Removes the seal of an object that has no name any more. What was fetched again meanwhile, or begun to be, has the
    /// same one.
    fn remove_seal(&self, directory: &Directory, id: ObjectId, size_bytes: u64) {
        if !self.ledger().costs().seal_is_file(size_bytes) {
            return;
        }
        let _only = self.sealing.lock();
        if self.has(id) || self.partials().has(id) {
            return;
        }
        if let Err(error) = directory.remove(Place::Seals, &name_in(Place::Seals, id)) {
            self.failed("remove a seal", &error);
        }
    }

    /// Hides an object that nobody has open or mapped.
    pub(crate) fn begin_eviction(&self, id: ObjectId) -> EvictionStart {
        let directory = self.directory();
        let name = name_in(Place::Objects, id);
        let file = match directory.open(Place::Objects, &name) {
            Ok(Some(file)) => file,
            Ok(None) => return self.hide_unverified(&directory, id),
            Err(error) => {
                self.failed("evict an object", &error);
                return EvictionStart::InUse;
            }
        };
        let Ok(metadata) = file.metadata() else {
            return EvictionStart::InUse;
        };
        if !write_lease(&file) {
            return EvictionStart::InUse;
        }
        // A walk that lists the old name and then does not find it would count the object as gone.
        let _changing = self.ledger().changing(shard_of(id));
        let hidden = evicting_name(id);
        match directory.rename((Place::Objects, &name), (Place::Objects, &hidden)) {
            Ok(()) => {
                self.remove_landing_link(id);
                let size_bytes = metadata.len();
                EvictionStart::Hidden(EvictingObject {
                    id,
                    size_bytes,
                    place: Place::Objects,
                    name: hidden,
                    may_return: true,
                })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => EvictionStart::Gone,
            Err(error) => {
                self.failed("evict an object", &error);
                EvictionStart::InUse
            }
        }
    }

    /// What was not verified yet is in no layer of a view: it needs no hiding.
    fn hide_unverified(&self, directory: &Directory, id: ObjectId) -> EvictionStart {
        let name = name_in(Place::Unverified, id);
        match directory.stat(Place::Unverified, &name) {
            Some(stat) => EvictionStart::Hidden(EvictingObject {
                id,
                size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
                place: Place::Unverified,
                name,
                may_return: false,
            }),
            None => EvictionStart::Gone,
        }
    }

    /// Takes an object with wrong bytes out of sight, in use or not. Its space follows when eviction is next at work.
    pub(crate) fn quarantine(&self, id: ObjectId, size_bytes: u64) {
        let directory = self.directory();
        let changing = self.ledger().changing(shard_of(id));
        // The number keeps several copies of one object apart, of which the first are still open.
        let name = corrupt_name(id, self.names.fetch_add(1, Ordering::Relaxed));
        let from = name_in(Place::Objects, id);
        let length = directory
            .stat(Place::Objects, &from)
            .map_or(size_bytes, |stat| u64::try_from(stat.st_size).unwrap_or(0));
        match directory.rename((Place::Objects, &from), (Place::Objects, &name)) {
            Ok(()) => {
                self.remove_landing_link(id);
                self.remove_seal(&directory, id, length.max(size_bytes));
                self.counters().corrupt.fetch_add(1, Ordering::Relaxed);
                warn!(%id, "an object in the cache is not what was fetched, it will be fetched again");
                let place = Place::Objects;
                self.condemned.lock().push(EvictingObject {
                    id,
                    size_bytes: length,
                    place,
                    name,
                    may_return: false,
                });
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => self.failed("remove a corrupt object", &error),
        }
        drop(changing);
    }

    /// Takes the objects that were condemned since the last call.
    pub(crate) fn take_corrupt(&self) -> Vec<EvictingObject> {
        std::mem::take(&mut *self.condemned.lock())
    }

    /// Whether there are any.
    pub(crate) fn has_corrupt(&self) -> bool {
        !self.condemned.lock().is_empty()
    }

    /// Frees the space of a hidden object that the views have let go, unless it came into use in the last moment.
    pub(crate) fn finish_eviction(&self, hidden: EvictingObject) -> EvictionEnd {
        let directory = self.directory();
        let _changing = self.ledger().changing(shard_of(hidden.id));
        let cost = self.ledger().costs().object(hidden.size_bytes);
        let file = match directory.open(hidden.place, &hidden.name) {
            Ok(Some(file)) => file,
            Ok(None) => {
                self.ledger().inode_freed(hidden.id, hidden.size_bytes);
                return EvictionEnd::Freed(cost);
            }
            Err(error) => {
                self.failed("evict an object", &error);
                return EvictionEnd::InUse(hidden);
            }
        };
        if !write_lease(&file) {
            drop(file);
            return self.cancel_eviction(&directory, hidden, cost);
        }
        match directory.remove(hidden.place, &hidden.name) {
            Ok(_) => {
                self.remove_seal(&directory, hidden.id, hidden.size_bytes);
                // A lookup may have landed it in the last moment; without any name left, nobody can give it another.
                if file.metadata().is_ok_and(|metadata| metadata.nlink() > 0) {
                    self.remove_landing_link(hidden.id);
                }
                if self.unlinked(file, self.ledger().reopen(hidden.id, hidden.size_bytes)) {
                    EvictionEnd::Freed(cost)
                } else {
                    EvictionEnd::FreePending(cost)
                }
            }
            Err(error) => {
                self.failed("evict an object", &error);
                EvictionEnd::InUse(hidden)
            }
        }
    }

    fn cancel_eviction(&self, directory: &Directory, hidden: EvictingObject, cost: DiskSpace) -> EvictionEnd {
        if !hidden.may_return {
            return EvictionEnd::InUse(hidden);
        }
        let name = name_in(Place::Objects, hidden.id);
        match directory.rename_new((hidden.place, &hidden.name), (Place::Objects, &name)) {
            Ok(true) => EvictionEnd::Cancelled(hidden.id, cost),
            // It was fetched again: this copy goes when it is closed.
            Ok(false) => EvictionEnd::InUse(hidden),
            Err(error) => {
                self.failed("put back an object", &error);
                EvictionEnd::InUse(hidden)
            }
        }
    }

    /// The size of an object as it is on disk.
    pub(crate) fn size_on_disk(&self, id: ObjectId) -> Option<u64> {
        let stat = self
            .directory()
            .stat(Place::Objects, &name_in(Place::Objects, id))?;
        u64::try_from(stat.st_size).ok()
    }
}

/// A file as callers share it.
pub(crate) fn shared(file: File) -> Arc<File> {
    Arc::new(file)
}
