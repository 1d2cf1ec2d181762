//! Complete objects in a tier: how they are stored and opened.
//!
//! All of this blocks on the file system.

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use millpond_core::ObjectId;

use super::accounting::{SpaceAccounting, SpaceReservation, shard_of};
use super::corrupt::CorruptObjects;
use super::directory::{Directory, TierDir, name_in};
use super::error::NotStored;
use super::eviction_queue::QueueSlot;
use super::files::TierFiles;
use super::landing::LandingLinks;
use super::partials::Partials;
use super::seal::{self, BlockCrc};
use super::seals::Seals;
use super::shards::Shards;
use super::unverified::{UnverifiedObjects, Verification};
use super::writer::DirectoryWriter;

/// The complete objects of a tier.
#[derive(Debug)]
pub(crate) struct Objects {
    pub(super) files: Arc<TierFiles>,
    pub(super) accounting: Arc<SpaceAccounting>,
    pub(super) queue: Arc<QueueSlot>,
    pub(super) shards: Arc<Shards>,
    pub(super) writer: Arc<DirectoryWriter>,
    pub(super) seals: Arc<Seals>,
    pub(super) landing: Arc<LandingLinks>,
    pub(super) corrupt: Arc<CorruptObjects>,
    pub(super) unverified: Arc<UnverifiedObjects>,
    pub(super) partials: Arc<Partials>,
}

impl Objects {
    /// Returns whether an object is complete and verified.
    pub(crate) fn has(&self, id: ObjectId) -> bool {
        self.files.has_object(id)
    }

    /// The size of an object as it is on disk.
    pub(crate) fn size_on_disk(&self, id: ObjectId) -> Option<u64> {
        let stat = self
            .files
            .directory()
            .stat(TierDir::Objects, &name_in(TierDir::Objects, id))?;
        u64::try_from(stat.st_size).ok()
    }

    /// The sealed checksums of an object, or `None` where there are none that fit it.
    pub(crate) fn checksums(&self, file: &File, id: ObjectId, size_bytes: u64) -> Option<Vec<BlockCrc>> {
        self.seals.read(file, id, size_bytes)
    }

    /// Opens an object that is complete and verified.
    pub(crate) fn open(&self, id: ObjectId, size_bytes: u64) -> Option<File> {
        let file = match self
            .files
            .directory()
            .open(TierDir::Objects, &name_in(TierDir::Objects, id))
        {
            Ok(found) => found?,
            Err(error) => {
                self.files.failed("open an object", &error);
                return None;
            }
        };
        if file.metadata().is_ok_and(|metadata| metadata.len() == size_bytes) {
            self.queue.touch(id);
            return Some(file);
        }
        drop(file);
        self.corrupt.quarantine(id, size_bytes);
        None
    }

    /// Verifies a small object that survived a crash and, if it is right, opens it.
    pub(crate) fn verify(&self, id: ObjectId, size_bytes: u64) -> Option<File> {
        match self.unverified.verify(id, size_bytes) {
            Verification::Verified(file) => Some(file),
            Verification::Superseded => self.open(id, size_bytes),
            Verification::NotFound => None,
        }
    }

    /// Writes a complete object and gives it its names.
    pub(crate) fn put(
        &self,
        reservation: SpaceReservation,
        id: ObjectId,
        size_bytes: u64,
        content: &[Bytes],
    ) -> Result<(), NotStored> {
        if content.iter().map(|chunk| chunk.len() as u64).sum::<u64>() != size_bytes {
            let error = io::Error::other("content is not as long as its reservation");
            self.files.failed("store an object", &error);
            return Err(NotStored::Failed);
        }
        let crcs = seal::of_content(content);
        let seal_is_file = self.accounting.costs().seal_is_file(size_bytes);
        if !self.partials.evict_if_idle(id) && seal_is_file {
            // Its map is where this object's seal would be. Its blocks are being stored one by one anyway.
            return Err(NotStored::Full);
        }
        let directory_before = self.files.directory();
        let changing = self.accounting.changing(shard_of(id));
        let is_new = self.writer.write("store an object", |directory| {
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
                directory.remove(TierDir::Temporary, &temporary).ok();
            }
            published
        })?;
        if is_new {
            reservation.publish(size_bytes);
            self.queue.insert(id, self.accounting.costs().object(size_bytes));
        }
        drop(changing);
        // The shard was changing when all were scanned again for a deleted directory: it was left out.
        if !Arc::ptr_eq(&directory_before, &self.files.directory()) {
            self.shards.try_rescan(shard_of(id));
        }
        self.landing.remember(id);
        Ok(())
    }

    /// Names a written file in `objects/` and `landing/`; returns whether the object was new.
    fn publish_temporary(
        &self,
        directory: &Directory,
        id: ObjectId,
        size_bytes: u64,
        temporary: &str,
        crcs: Option<&Vec<BlockCrc>>,
    ) -> io::Result<bool> {
        let (objects, landing) = (name_in(TierDir::Objects, id), name_in(TierDir::Landing, id));
        let sealing = crcs.map(|_| self.seals.lock());
        if let Some(crcs) = crcs {
            self.seals.write(directory, id, size_bytes, crcs)?;
        }
        let is_new = directory.link((TierDir::Temporary, temporary), (TierDir::Objects, &objects))?;
        drop(sealing);
        if is_new {
            directory.rename((TierDir::Temporary, temporary), (TierDir::Landing, &landing))?;
            // A rename of one link over another of the same file does nothing, and leaves both.
            directory.remove(TierDir::Temporary, temporary)?;
        } else {
            directory.remove(TierDir::Temporary, temporary)?;
            match directory.link((TierDir::Objects, &objects), (TierDir::Landing, &landing)) {
                // Evicted in the last moment: its reads bypass the cache.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !self.has(id) => {}
                linked => drop(linked?),
            }
        }
        Ok(is_new)
    }

    /// Links an object that is complete and verified into `landing/`; returns whether the link is there now.
    ///
    /// The link takes no space of its own: the reservation of the object covers both of its names.
    pub(crate) fn link_to_landing(&self, id: ObjectId) -> bool {
        let is_linked = self.landing.link(id);
        if is_linked {
            self.queue.touch(id);
        }
        is_linked
    }
}
