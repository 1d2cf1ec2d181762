//! Eviction of one object: it is renamed so that no lookup finds it, the views release it, and then it is unlinked.
//!
//! All of this blocks on the file system.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use millpond_core::ObjectId;

use super::accounting::{SpaceAccounting, shard_of};
use super::costs::DiskSpace;
use super::directory::{Directory, TierDir, evicting_name, name_in};
use super::files::TierFiles;
use super::io::write_lease;
use super::landing::LandingLinks;
use super::seals::Seals;
use super::unlinked::UnlinkedFiles;

/// An object that no new lookup finds, and whose space is not free yet.
#[derive(Debug)]
pub(crate) struct EvictingObject {
    pub(crate) id: ObjectId,
    pub(crate) size_bytes: u64,
    place: TierDir,
    name: String,
    /// Whether it may get its name back when it turns out to be in use.
    may_return: bool,
}

impl EvictingObject {
    /// An object with wrong bytes, under its name as such.
    pub(super) const fn corrupt(id: ObjectId, size_bytes: u64, name: String) -> Self {
        Self {
            id,
            size_bytes,
            place: TierDir::Objects,
            name,
            may_return: false,
        }
    }

    /// Returns whether its bytes were found to be wrong.
    pub(crate) fn is_corrupt(&self) -> bool {
        self.place == TierDir::Objects && !self.may_return
    }
}

/// Outcome of an attempt to begin an eviction.
#[derive(Debug)]
pub(crate) enum EvictionStart {
    /// No new lookup finds the object.
    Begun(EvictingObject),
    /// A process has it open or mapped.
    InUse,
    /// It does not exist.
    NotFound,
}

/// Outcome of an attempt to finish an eviction.
#[derive(Debug)]
pub(crate) enum EvictionEnd {
    /// The space is free.
    Freed(DiskSpace),
    /// The object is unlinked; its space is free when the kernel drops its last reference.
    FreePending(DiskSpace),
    /// The object came into use meanwhile and has its name back.
    Cancelled(ObjectId, DiskSpace),
    /// It is in use and cannot get its name back.
    InUse(EvictingObject),
}

/// Eviction of the complete objects of a tier.
#[derive(Debug)]
pub(crate) struct ObjectEviction {
    pub(super) files: Arc<TierFiles>,
    pub(super) accounting: Arc<SpaceAccounting>,
    pub(super) landing: Arc<LandingLinks>,
    pub(super) seals: Arc<Seals>,
    pub(super) unlinked: Arc<UnlinkedFiles>,
}

impl ObjectEviction {
    /// Renames an object that no process has open or mapped, so that no new lookup finds it.
    pub(crate) fn begin(&self, id: ObjectId) -> EvictionStart {
        let directory = self.files.directory();
        let name = name_in(TierDir::Objects, id);
        let file = match directory.open(TierDir::Objects, &name) {
            Ok(Some(file)) => file,
            Ok(None) => return begin_unverified(&directory, id),
            Err(error) => {
                self.files.failed("evict an object", &error);
                return EvictionStart::InUse;
            }
        };
        let Ok(metadata) = file.metadata() else {
            return EvictionStart::InUse;
        };
        if !write_lease(&file) {
            return EvictionStart::InUse;
        }
        // A scan that lists the old name and then does not find it would count the object as deleted.
        let _changing = self.accounting.changing(shard_of(id));
        let evicting = evicting_name(id);
        match directory.rename((TierDir::Objects, &name), (TierDir::Objects, &evicting)) {
            Ok(()) => {
                self.landing.remove(id);
                let size_bytes = metadata.len();
                EvictionStart::Begun(EvictingObject {
                    id,
                    size_bytes,
                    place: TierDir::Objects,
                    name: evicting,
                    may_return: true,
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => EvictionStart::NotFound,
            Err(error) => {
                self.files.failed("evict an object", &error);
                EvictionStart::InUse
            }
        }
    }

    /// Unlinks an object that the views have released, unless it came into use in the last moment.
    pub(crate) fn finish(&self, object: EvictingObject) -> EvictionEnd {
        let directory = self.files.directory();
        let _changing = self.accounting.changing(shard_of(object.id));
        let cost = self.accounting.costs().object(object.size_bytes);
        let file = match directory.open(object.place, &object.name) {
            Ok(Some(file)) => file,
            Ok(None) => {
                self.accounting.inode_freed(object.id, object.size_bytes);
                return EvictionEnd::Freed(cost);
            }
            Err(error) => {
                self.files.failed("evict an object", &error);
                return EvictionEnd::InUse(object);
            }
        };
        if !write_lease(&file) {
            drop(file);
            return self.cancel(&directory, object, cost);
        }
        match directory.remove(object.place, &object.name) {
            Ok(_) => {
                self.seals.remove(&directory, object.id, object.size_bytes);
                // A lookup may have linked it into `landing/` in the last moment; once it has no name left, it can get no
                // other.
                if file.metadata().is_ok_and(|metadata| metadata.nlink() > 0) {
                    self.landing.remove(object.id);
                }
                let reservation = self.accounting.reopen(object.id, object.size_bytes);
                if self.unlinked.release(file, reservation) {
                    EvictionEnd::Freed(cost)
                } else {
                    EvictionEnd::FreePending(cost)
                }
            }
            Err(error) => {
                self.files.failed("evict an object", &error);
                EvictionEnd::InUse(object)
            }
        }
    }

    fn cancel(&self, directory: &Directory, object: EvictingObject, cost: DiskSpace) -> EvictionEnd {
        if !object.may_return {
            return EvictionEnd::InUse(object);
        }
        let name = name_in(TierDir::Objects, object.id);
        match directory.rename_new((object.place, &object.name), (TierDir::Objects, &name)) {
            Ok(true) => EvictionEnd::Cancelled(object.id, cost),
            // It was fetched again: this copy is freed when it is closed.
            Ok(false) => EvictionEnd::InUse(object),
            Err(error) => {
                self.files.failed("restore an object's name", &error);
                EvictionEnd::InUse(object)
            }
        }
    }
}

/// An object that is not verified yet is in no layer of a view: it keeps its name.
fn begin_unverified(directory: &Directory, id: ObjectId) -> EvictionStart {
    let name = name_in(TierDir::Unverified, id);
    match directory.stat(TierDir::Unverified, &name) {
        Some(stat) => EvictionStart::Begun(EvictingObject {
            id,
            size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
            place: TierDir::Unverified,
            name,
            may_return: false,
        }),
        None => EvictionStart::NotFound,
    }
}
