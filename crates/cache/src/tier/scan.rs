//! The startup scan of a tier's directory: what it holds is counted, and leftovers of an earlier process are removed.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use millpond_core::ObjectId;
use parking_lot::Mutex;
use rustix::fs::{AtFlags, statat};
use tokio::sync::watch;
use tracing::debug;

use super::accounting::{SpaceAccounting, shard_of};
use super::costs::{DiskSpace, disk_bytes};
use super::directory::{Directory, TierDir, evicting_id, is_corrupt, name_in};
use super::eviction_queue::{EvictionQueue, QueueSlot};
use super::files::TierFiles;
use super::partials::Partials;
use super::policy::Eviction;
use super::pool::{PendingScan, PoolCapacity};
use super::settings::CurrentSettings;
use super::shards::objects_in;
use super::state::StateFile;
use super::unverified::UnverifiedObjects;

/// The startup scan of a tier.
#[derive(Debug)]
pub(crate) struct StartupScan {
    files: Arc<TierFiles>,
    state: Arc<StateFile>,
    accounting: Arc<SpaceAccounting>,
    queue: Arc<QueueSlot>,
    settings: Arc<CurrentSettings>,
    partials: Arc<Partials>,
    unverified: Arc<UnverifiedObjects>,
    pool: Option<Arc<PoolCapacity>>,
    finished: watch::Sender<bool>,
    /// Other stores of the pool wait for this scan too.
    pending: Mutex<Option<PendingScan>>,
}

impl StartupScan {
    pub(super) fn new(
        state: &Arc<StateFile>,
        settings: &Arc<CurrentSettings>,
        partials: &Arc<Partials>,
        unverified: &Arc<UnverifiedObjects>,
    ) -> Self {
        let pool = settings.pool.clone();
        let pending = pool.as_ref().map(PoolCapacity::add_scan);
        Self {
            files: Arc::clone(&settings.files),
            state: Arc::clone(state),
            accounting: Arc::clone(&settings.accounting),
            queue: Arc::clone(&settings.queue),
            settings: Arc::clone(settings),
            partials: Arc::clone(partials),
            unverified: Arc::clone(unverified),
            pool,
            finished: watch::Sender::new(false),
            pending: Mutex::new(pending),
        }
    }

    /// Counts what the tier holds, and removes what is of no use; from then on space can be reserved.
    ///
    /// # Errors
    /// The file system's: the tier then stays without capacity.
    pub(crate) fn run(&self) -> io::Result<()> {
        let directory = self.files.directory();
        let settings = self.settings.get();
        self.state.write_if_changed(&directory)?;
        directory.empty(TierDir::Temporary)?;
        for shard in directory.subdirectories(TierDir::Landing)? {
            for (name, _) in directory.list(TierDir::Landing, &shard)? {
                directory.remove(
                    TierDir::Landing,
                    &format!("{shard}/{}", String::from_utf8_lossy(&name)),
                )?;
            }
            self.count_directory(&directory, TierDir::Landing, &shard);
        }
        let costs = *self.accounting.costs();
        let mut known = Vec::new();
        let mut with_seal_files = HashSet::new();
        let mut has_unverified = false;
        for place in [TierDir::Objects, TierDir::Unverified] {
            for shard in directory.subdirectories(place)? {
                recover_evictions(&directory, place, &shard)?;
                for (id, size_bytes) in objects_in(&directory, place, &shard)? {
                    has_unverified |= place == TierDir::Unverified;
                    self.accounting.count(id, size_bytes);
                    if costs.seal_is_file(size_bytes) {
                        with_seal_files.insert(id);
                    }
                    if settings.eviction != Eviction::Never {
                        known.push((id, costs.object(size_bytes)));
                    }
                }
                self.count_directory(&directory, place, &shard);
            }
        }
        for (id, size_bytes) in self.partials.scan(&directory)? {
            with_seal_files.insert(id);
            known.push((id, costs.partial(size_bytes)));
        }
        for (name, _) in directory.list(TierDir::Seals, ".")? {
            let name = String::from_utf8_lossy(&name).into_owned();
            if !name.parse().is_ok_and(|id| with_seal_files.contains(&id)) {
                directory.remove(TierDir::Seals, &name)?;
            }
        }
        self.unverified.set_any(has_unverified);
        let capacity = self.settings.capacity(&directory, settings.limit)?;
        self.accounting.set_capacity(capacity);
        if settings.eviction != Eviction::Never {
            let queue = EvictionQueue::new(settings.eviction, capacity.bytes);
            for (id, cost) in known {
                queue.insert(id, cost.bytes);
            }
            self.queue.set(Some(queue));
        }
        debug!(path = %directory.path().display(), totals = ?self.accounting.totals(), "startup scan of the cache directory finished");
        Ok(())
    }

    /// Notes that the scan has succeeded or failed.
    pub(crate) fn finish(&self) {
        self.finished.send_replace(true);
        // The other stores of the pool continue, if this was the last scan.
        drop(self.pending.lock().take());
    }

    /// Waits until this scan, and those of all stores that share the pool, are finished.
    pub(crate) async fn wait(&self) {
        // The sender is part of this value, so it cannot be dropped.
        self.finished
            .subscribe()
            .wait_for(|finished| *finished)
            .await
            .ok();
        if let Some(pool) = &self.pool {
            pool.scanned().await;
        }
    }

    fn count_directory(&self, directory: &Directory, place: TierDir, shard: &str) {
        let stat = statat(directory.fd(place), shard, AtFlags::SYMLINK_NOFOLLOW);
        // Any id of the shard will do: only its first two characters count.
        let Some(id) = ObjectId::from_components(shard.as_bytes(), &[b'a'; 24]) else {
            return;
        };
        let taken = DiskSpace {
            bytes: stat.map_or(0, |stat| disk_bytes(stat.st_blocks)),
            inodes: 1,
        };
        self.accounting.count_directory(shard_of(id), place, taken);
    }
}

/// Gives objects whose eviction was not finished their names back, and removes the corrupt ones.
fn recover_evictions(directory: &Directory, place: TierDir, shard: &str) -> io::Result<()> {
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
