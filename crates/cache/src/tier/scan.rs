//! Taking stock of a tier's directory: at its start, after a crash of the machine, and after it was deleted under us.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use millpond_core::ObjectId;
use rustix::fs::{AtFlags, fstat, fstatfs, fstatvfs, renameat, statat};
use rustix::io::Errno;
use tracing::debug;

use super::Tier;
use super::accounting::{SHARDS, ShardScan, shard_of};
use super::costs::{Costs, DiskSpace, XATTR_SEAL_BLOCKS};
use super::directory::{Directory, Place, evicting_id, is_corrupt, name_in};
use super::eviction_queue::EvictionQueue;
use super::policy::{Eviction, Limit, Medium};

/// The unit in which `st_blocks` counts.
const STAT_BLOCK_BYTES: u64 = 512;

/// What names `ab` of the 1,024 shards take in their directory, twice over.
const SHARD_NAMES_BYTES: u64 = 24 << 10;

/// `f_type` of a tmpfs.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// Tries out what the file system can do and what it charges for it.
pub(super) fn probe(directory: &Directory) -> io::Result<Costs> {
    let is_tmpfs = fstatfs(directory.root())?.f_type == TMPFS_MAGIC;
    let statistics = fstatvfs(directory.root())?;
    let unit_bytes = statistics.f_frsize.max(4096);
    let longest = vec![0; usize::try_from(XATTR_SEAL_BLOCKS * 4).unwrap_or(usize::MAX)];
    let (xattrs, xattr_bytes) = match directory.write_temporary(&[] as &[Bytes], Some(&longest)) {
        Ok(name) => {
            let blocks = directory
                .stat(Place::Temporary, &name)
                .map_or(0, |stat| stat.st_blocks);
            directory.remove(Place::Temporary, &name)?;
            (true, u64::try_from(blocks).unwrap_or(0) * STAT_BLOCK_BYTES)
        }
        Err(error) if [Some(libc::ENOTSUP), Some(libc::EPERM)].contains(&error.raw_os_error()) => (false, 0),
        // The probe's name is taken by what an earlier process left: everything in this place is garbage.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            empty(directory, Place::Temporary)?;
            return probe(directory);
        }
        Err(error) => return Err(error),
    };
    // A tmpfs charges an inode for each name of a file, and takes attributes from the same account.
    let inodes_per_file = if is_tmpfs { 3 } else { 1 };
    Ok(Costs {
        unit_bytes,
        xattrs,
        xattr_bytes,
        inodes_per_file,
        directory_blocks: !is_tmpfs,
    })
}

/// What the directories take that are always there, with `state.json` and its successor.
pub(super) fn fixed(costs: &Costs, directory: &Directory) -> DiskSpace {
    let mut fixed = DiskSpace {
        bytes: 2 * costs.unit_bytes,
        inodes: 2,
    };
    for place in [Place::Root].into_iter().chain(Place::BELOW) {
        let names = match place {
            Place::Objects | Place::Landing if costs.directory_blocks => SHARD_NAMES_BYTES,
            _ => 0,
        };
        let taken = fstat(directory.fd(place)).map_or(0, |stat| disk_bytes(stat.st_blocks));
        let bytes = costs.directory(0).saturating_add(names).max(taken);
        // The flat places grow; what they have grown to is charged here, and their growth by the ledger.
        fixed = fixed.plus(DiskSpace { bytes, inodes: 1 });
    }
    fixed
}

fn disk_bytes(blocks: i64) -> u64 {
    u64::try_from(blocks).unwrap_or(0) * STAT_BLOCK_BYTES
}

/// After a crash of the machine: moves what is in `objects/` to `unverified/`, and takes `landing/`, which has links
/// to the same files, out of sight. Killed half-way, it is done again, for the state still says so.
pub(super) fn mark_unverified(directory: Directory) -> io::Result<Directory> {
    let root = directory.root();
    let objects = Place::Objects.name();
    let unverified = Place::Unverified.name();
    for shard in subdirectories(&directory, Place::Objects)? {
        let (from, to) = (format!("{objects}/{shard}"), format!("{unverified}/{shard}"));
        match renameat(root, &from, root, &to) {
            Ok(()) => continue,
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        for (name, _) in directory.list(Place::Objects, &shard)? {
            let name = String::from_utf8_lossy(&name).into_owned();
            renameat(root, format!("{from}/{name}"), root, format!("{to}/{name}"))?;
        }
    }
    for shard in subdirectories(&directory, Place::Landing)? {
        std::fs::remove_dir_all(directory.path().join(Place::Landing.name()).join(shard))?;
    }
    directory.recreate()
}

/// The shards that have a directory.
fn subdirectories(directory: &Directory, place: Place) -> io::Result<Vec<String>> {
    let entries = directory.list(place, ".")?;
    Ok(entries
        .into_iter()
        .filter_map(|(name, _)| String::from_utf8(name).ok())
        .collect())
}

/// Removes everything in a place.
fn empty(directory: &Directory, place: Place) -> io::Result<()> {
    for name in subdirectories(directory, place)? {
        let path = directory.path().join(place.name()).join(&name);
        match directory.remove(place, &name) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EISDIR) => std::fs::remove_dir_all(path)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Tier {
    /// Finds out what the tier holds, and removes what is of no use; from then on there can be room.
    ///
    /// # Errors
    /// The file system's: the tier then stays without room.
    pub(crate) fn scan(&self) -> io::Result<()> {
        let directory = self.directory();
        let terms = *self.terms.lock();
        if self.state_changed {
            self.state.lock().write(&directory)?;
        }
        empty(&directory, Place::Temporary)?;
        for shard in subdirectories(&directory, Place::Landing)? {
            for (name, _) in directory.list(Place::Landing, &shard)? {
                directory.remove(
                    Place::Landing,
                    &format!("{shard}/{}", String::from_utf8_lossy(&name)),
                )?;
            }
            self.count_directory(&directory, Place::Landing, &shard);
        }
        let mut known = Vec::new();
        let mut with_seal_files = HashSet::new();
        let mut is_any_unverified = false;
        for place in [Place::Objects, Place::Unverified] {
            for shard in subdirectories(&directory, place)? {
                recover_evictions(&directory, place, &shard)?;
                for (id, size_bytes) in objects_in(&directory, place, &shard)? {
                    is_any_unverified |= place == Place::Unverified;
                    self.ledger().count(id, size_bytes);
                    if self.ledger().costs().seal_is_file(size_bytes) {
                        with_seal_files.insert(id);
                    }
                    if terms.eviction != Eviction::Never {
                        known.push((id, self.ledger().costs().object(size_bytes)));
                    }
                }
                self.count_directory(&directory, place, &shard);
            }
        }
        for (id, size_bytes) in self.count_partials(&directory)? {
            with_seal_files.insert(id);
            known.push((id, self.ledger().costs().partial(size_bytes)));
        }
        for (name, _) in directory.list(Place::Seals, ".")? {
            let name = String::from_utf8_lossy(&name).into_owned();
            if !name.parse().is_ok_and(|id| with_seal_files.contains(&id)) {
                directory.remove(Place::Seals, &name)?;
            }
        }
        self.unverified.store(is_any_unverified, Ordering::Relaxed);
        let capacity = self.capacity(&directory, terms.limit)?;
        self.ledger().set_capacity(capacity);
        if terms.eviction != Eviction::Never {
            let order = EvictionQueue::new(terms.eviction, capacity.bytes);
            for (id, cost) in known {
                order.insert(id, cost.bytes);
            }
            self.order.store(Some(order.into()));
        }
        debug!(path = %self.options.path.display(), totals = ?self.ledger().totals(), "counted the cache directory");
        Ok(())
    }

    /// Says that the stock is taken, or cannot be.
    pub(crate) fn finish_scan(&self) {
        self.stock.send_replace(true);
        // The others' turn, if this was the last.
        drop(self.counting.lock().take());
    }

    fn count_directory(&self, directory: &Directory, place: Place, shard: &str) {
        let stat = statat(directory.fd(place), shard, AtFlags::SYMLINK_NOFOLLOW);
        // Any id of the shard will do: its first two characters are all that counts.
        let Some(id) = ObjectId::from_components(shard.as_bytes(), &[b'a'; 24]) else {
            return;
        };
        let taken = DiskSpace {
            bytes: stat.map_or(0, |stat| disk_bytes(stat.st_blocks)),
            inodes: 1,
        };
        self.ledger().count_directory(shard_of(id), place, taken);
    }

    pub(super) fn capacity(&self, directory: &Directory, limit: Limit) -> io::Result<DiskSpace> {
        let statistics = fstatvfs(directory.root())?;
        let used = self.ledger().totals().used;
        let available = DiskSpace {
            bytes: used
                .bytes
                .saturating_add(statistics.f_bavail.saturating_mul(statistics.f_frsize)),
            // Some file systems make inodes as they go, and say 0.
            inodes: if statistics.f_files == 0 {
                u64::MAX
            } else {
                used.inodes.saturating_add(statistics.f_favail)
            },
        };
        let whole_bytes = statistics.f_blocks.saturating_mul(statistics.f_frsize);
        // What others share is given out by the pool, whatever is free at this moment.
        let most = self
            .options
            .pool
            .as_ref()
            .map_or(available.bytes, |pool| pool.capacity_bytes().min(whole_bytes));
        let bytes = limit.bytes.map_or(most, |limit| match self.options.pool {
            Some(_) => limit.min(most),
            None => limit.min(whole_bytes),
        });
        Ok(DiskSpace {
            bytes,
            inodes: limit.inodes.unwrap_or(available.inodes),
        })
    }

    /// Sets all accounts right after something was deleted under us.
    pub(super) fn rescan(&self) -> io::Result<()> {
        for shard in 0..SHARDS {
            self.rescan_shard(shard)?;
        }
        Ok(())
    }

    /// Sets the account of one shard right, unless it is changing.
    pub(crate) fn rescan_shard(&self, shard: usize) -> io::Result<()> {
        let directory = self.directory();
        let Some(name) = shard_name(shard) else {
            return Ok(());
        };
        let costs = *self.ledger().costs();
        self.ledger().recount(shard, || {
            let mut found = ShardScan::default();
            for place in [Place::Objects, Place::Unverified] {
                for (file, _) in directory.list(place, &name)? {
                    let path = format!("{name}/{}", String::from_utf8_lossy(&file));
                    if let Some(stat) = directory.stat(place, &path) {
                        let size_bytes = u64::try_from(stat.st_size).unwrap_or(0);
                        found.add(costs.object(size_bytes), size_bytes);
                    }
                }
            }
            Ok::<_, io::Error>(found)
        })?;
        Ok(())
    }

    /// The ids and sizes of the objects in one shard.
    pub(crate) fn objects_in_shard(&self, place: Place, shard: usize) -> io::Result<Vec<(ObjectId, u64)>> {
        match shard_name(shard) {
            Some(name) => objects_in(&self.directory(), place, &name),
            None => Ok(Vec::new()),
        }
    }

    /// The ids of what is here, whole or in part, that `is_named` does not know.
    pub(crate) fn ids_without(&self, is_named: &dyn Fn(ObjectId) -> bool) -> io::Result<Vec<ObjectId>> {
        let mut unnamed = self.partials().ids();
        unnamed.retain(|id| !is_named(*id));
        for shard in 0..SHARDS {
            for place in [Place::Objects, Place::Unverified] {
                let ids = self.objects_in_shard(place, shard)?.into_iter().map(|(id, _)| id);
                unnamed.extend(ids.filter(|id| !is_named(*id)));
            }
        }
        Ok(unnamed)
    }

    /// Notes that everything that came through a crash was verified.
    pub(crate) fn all_verified(&self) {
        self.unverified.store(false, Ordering::Relaxed);
    }

    /// Whether objects that came through a crash may be left.
    pub(crate) fn is_any_unverified(&self) -> bool {
        self.unverified.load(Ordering::Relaxed)
    }

    pub(crate) fn is_memory(&self) -> bool {
        self.options.medium == Medium::Memory
    }
}

/// The directory of a shard: the first two characters of its objects' ids.
fn shard_name(shard: usize) -> Option<String> {
    let bits = u16::try_from(shard).ok()? << 6;
    let mut bytes = [0; 16];
    bytes
        .iter_mut()
        .zip(bits.to_be_bytes())
        .for_each(|(byte, bits)| *byte = bits);
    Some(ObjectId::from_bytes(bytes).path().split('/').next()?.to_owned())
}

/// The objects in a directory.
fn objects_in(directory: &Directory, place: Place, shard: &str) -> io::Result<Vec<(ObjectId, u64)>> {
    let mut found = Vec::new();
    for (name, _) in directory.list(place, shard)? {
        let Some(id) = ObjectId::from_components(shard.as_bytes(), &name) else {
            continue;
        };
        if let Some(stat) = directory.stat(place, &name_in(place, id)) {
            found.push((id, u64::try_from(stat.st_size).unwrap_or(0)));
        }
    }
    Ok(found)
}

/// Gives objects that were about to be evicted their names back, and removes the corrupt ones.
fn recover_evictions(directory: &Directory, place: Place, shard: &str) -> io::Result<()> {
    for (name, _) in directory.list(place, shard)? {
        let path = format!("{shard}/{}", String::from_utf8_lossy(&name));
        if let Some(id) = evicting_id(shard.as_bytes(), &name) {
            if !directory.rename_new((place, &path), (place, &name_in(place, id)))? {
                directory.remove(place, &path)?;
            }
        } else if is_corrupt(&name) {
            directory.remove(place, &path)?;
        }
    }
    Ok(())
}
