//! Objects that survived a crash of the machine: each is in `unverified/` until its checksums were compared.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millpond_core::ObjectId;
use rustix::fs::renameat;
use rustix::io::Errno;
use tracing::warn;

use super::accounting::{SpaceAccounting, SpaceReservation, shard_of};
use super::directory::{Directory, TierDir, name_in};
use super::files::TierFiles;
use super::seal;
use super::seals::Seals;
use super::unlinked::UnlinkedFiles;

/// Outcome of a verification.
#[derive(Debug)]
pub(super) enum Verification {
    /// The object is right and has its name in `objects/`.
    Verified(File),
    /// Another thread was faster, or the object was fetched again meanwhile: it may be in `objects/`.
    Superseded,
    /// There is no such object, or it is not usable.
    NotFound,
}

/// The unverified objects of a tier.
#[derive(Debug)]
pub(crate) struct UnverifiedObjects {
    files: Arc<TierFiles>,
    accounting: Arc<SpaceAccounting>,
    seals: Arc<Seals>,
    unlinked: Arc<UnlinkedFiles>,
    /// Whether there may be objects in `unverified/`.
    any: AtomicBool,
}

impl UnverifiedObjects {
    /// There may be some until a scan has found out.
    pub(super) fn new(
        files: &Arc<TierFiles>,
        accounting: &Arc<SpaceAccounting>,
        seals: &Arc<Seals>,
        unlinked: &Arc<UnlinkedFiles>,
    ) -> Arc<Self> {
        Arc::new(Self {
            files: Arc::clone(files),
            accounting: Arc::clone(accounting),
            seals: Arc::clone(seals),
            unlinked: Arc::clone(unlinked),
            any: AtomicBool::new(true),
        })
    }

    /// Returns whether there may be any.
    pub(crate) fn has_any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Notes whether there are any.
    pub(crate) fn set_any(&self, any: bool) {
        self.any.store(any, Ordering::Relaxed);
    }

    /// Verifies a small object and, if it is right, moves it back to the others.
    pub(super) fn verify(&self, id: ObjectId, size_bytes: u64) -> Verification {
        if !self.has_any() || self.accounting.costs().seal_is_file(size_bytes) {
            return Verification::NotFound;
        }
        let directory = self.files.directory();
        let (from, to) = (name_in(TierDir::Unverified, id), name_in(TierDir::Objects, id));
        let Ok(Some(file)) = directory.open(TierDir::Unverified, &from) else {
            return Verification::NotFound;
        };
        let Ok(found_bytes) = file.metadata().map(|metadata| metadata.len()) else {
            return Verification::NotFound;
        };
        let mut buffer = Vec::new();
        let is_right = found_bytes == size_bytes
            && self.seals.read(&file, id, size_bytes).is_some_and(|crcs| {
                crcs.iter().zip(0..).all(|(crc, index)| {
                    seal::block_is_right(&file, size_bytes, index, *crc, &mut buffer).unwrap_or(false)
                })
            });
        let _changing = self.accounting.changing(shard_of(id));
        if is_right {
            match directory.rename_new((TierDir::Unverified, &from), (TierDir::Objects, &to)) {
                Ok(true) => {
                    let counters = self.files.counters();
                    counters.verified_objects.fetch_add(1, Ordering::Relaxed);
                    return Verification::Verified(file);
                }
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    // It stays where it is, to be verified another time.
                    self.files.failed("restore a verified object", &error);
                    return Verification::NotFound;
                }
            }
            if directory.remove(TierDir::Unverified, &from).unwrap_or(false) {
                let reservation = self.accounting.reopen(id, found_bytes);
                self.unlinked.release(file, reservation);
            }
            return Verification::Superseded;
        }
        if directory.remove(TierDir::Unverified, &from).unwrap_or(false) {
            self.files.counters().corrupt.fetch_add(1, Ordering::Relaxed);
            warn!(object = %id, "object failed verification after a crash; removed, fetched again on next read");
            self.seals.remove(&directory, id, found_bytes);
            let reservation = self.accounting.reopen(id, found_bytes);
            self.unlinked.release(file, reservation);
        }
        Verification::NotFound
    }

    /// Makes a large object a partial one, of which no block is verified yet; returns its space.
    pub(super) fn reopen_as_partial(&self, id: ObjectId, size_bytes: u64) -> Option<SpaceReservation> {
        if !self.has_any() || !self.accounting.costs().seal_is_file(size_bytes) {
            return None;
        }
        let directory = self.files.directory();
        let (from, to) = (name_in(TierDir::Unverified, id), name_in(TierDir::Partial, id));
        let found_bytes = directory
            .stat(TierDir::Unverified, &from)
            .map(|stat| stat.st_size);
        if found_bytes != i64::try_from(size_bytes).ok() {
            return None;
        }
        let _changing = self.accounting.changing(shard_of(id));
        match directory.rename((TierDir::Unverified, &from), (TierDir::Partial, &to)) {
            Ok(()) => Some(self.accounting.reopen(id, size_bytes)),
            Err(_not_found) => None,
        }
    }
}

/// After a crash of the machine: moves what is in `objects/` to `unverified/`, and removes `landing/`, which has links to the
/// same files. After a kill in between it is done again, for the state file still says that the machine crashed.
pub(super) fn mark_unverified(directory: Directory) -> io::Result<Directory> {
    let root = directory.root();
    let objects = TierDir::Objects.name();
    let unverified = TierDir::Unverified.name();
    for shard in directory.subdirectories(TierDir::Objects)? {
        let (from, to) = (format!("{objects}/{shard}"), format!("{unverified}/{shard}"));
        match renameat(root, &from, root, &to) {
            Ok(()) => continue,
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        for (name, _) in directory.list(TierDir::Objects, &shard)? {
            let name = String::from_utf8_lossy(&name).into_owned();
            renameat(root, format!("{from}/{name}"), root, format!("{to}/{name}"))?;
        }
    }
    for shard in directory.subdirectories(TierDir::Landing)? {
        std::fs::remove_dir_all(directory.path().join(TierDir::Landing.name()).join(shard))?;
    }
    directory.recreate()
}
