//! Seals of the objects in a tier: extended attributes of small objects, files in `seals/` of large ones.
//!
//! A seal file and its object get their names in two steps, and lose them in two. The lock is held over both: from the check
//! that no object has a seal to the seal's removal, and from the creation of a seal to that of its object's name. It is held
//! over a few calls to the file system, and taken before the lock of the partial objects.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millpond_core::ObjectId;
use parking_lot::{Mutex, MutexGuard};

use super::accounting::SpaceAccounting;
use super::directory::{Directory, TierDir, name_in};
use super::files::TierFiles;
use super::partial_table::PartialTable;
use super::seal::{self, BlockCrc};
use super::state::Epoch;

/// The seals of a tier.
#[derive(Debug)]
pub(super) struct Seals {
    files: Arc<TierFiles>,
    accounting: Arc<SpaceAccounting>,
    partials: Arc<PartialTable>,
    epoch: Epoch,
    lock: Mutex<()>,
    /// Number of the next seal file; keeps two writers of one object apart.
    next: AtomicU64,
}

impl Seals {
    pub(super) fn new(
        files: &Arc<TierFiles>,
        accounting: &Arc<SpaceAccounting>,
        partials: &Arc<PartialTable>,
        epoch: Epoch,
    ) -> Arc<Self> {
        Arc::new(Self {
            files: Arc::clone(files),
            accounting: Arc::clone(accounting),
            partials: Arc::clone(partials),
            epoch,
            lock: Mutex::new(()),
            next: AtomicU64::new(0),
        })
    }

    /// Keeps seals and names of objects as they are to each other until the guard is dropped.
    pub(super) fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock()
    }

    /// Writes the seal file of an object that is about to get its name. The caller holds [`lock`](Self::lock).
    pub(super) fn write(
        &self,
        directory: &Directory,
        id: ObjectId,
        size_bytes: u64,
        crcs: &[BlockCrc],
    ) -> io::Result<()> {
        let name = format!("seal{:x}", self.next.fetch_add(1, Ordering::Relaxed));
        let file = directory.create(TierDir::Temporary, &name)?;
        seal::write_file(&file, size_bytes, crcs, self.epoch)
            .and_then(|()| {
                directory.rename(
                    (TierDir::Temporary, &name),
                    (TierDir::Seals, &name_in(TierDir::Seals, id)),
                )
            })
            .inspect_err(|_| {
                directory.remove(TierDir::Temporary, &name).ok();
            })
    }

    /// The sealed checksums of an object, or `None` where there are none that fit it.
    pub(super) fn read(&self, file: &File, id: ObjectId, size_bytes: u64) -> Option<Vec<BlockCrc>> {
        if !self.accounting.costs().seal_is_file(size_bytes) {
            return seal::from_xattr(&Directory::xattr(file)?, size_bytes);
        }
        let map = self
            .files
            .directory()
            .open(TierDir::Seals, &name_in(TierDir::Seals, id))
            .ok()??;
        let entries = seal::read_file(&map, size_bytes).ok()??;
        entries
            .into_iter()
            .map(|entry| entry.epoch.map(|_| entry.crc))
            .collect()
    }

    /// Removes the seal of an object that has no name left. An object that was fetched again meanwhile, or whose fetch has
    /// begun, has the same seal: it stays.
    pub(super) fn remove(&self, directory: &Directory, id: ObjectId, size_bytes: u64) {
        if !self.accounting.costs().seal_is_file(size_bytes) {
            return;
        }
        let _only = self.lock();
        if self.files.has_object(id) || self.partials.has(id) {
            return;
        }
        if let Err(error) = directory.remove(TierDir::Seals, &name_in(TierDir::Seals, id)) {
            self.files.failed("remove a seal", &error);
        }
    }
}
