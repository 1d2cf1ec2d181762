//! Limits and eviction policy of a tier: both may change while it is in use.
//!
//! The capacity changes immediately: a smaller one refuses new objects until enough is evicted. Changing the policy starts
//! with an empty eviction queue that a directory scan fills, as at startup. Objects written during the scan are added directly.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::fstatvfs;

use super::accounting::{SHARDS, SpaceAccounting};
use super::costs::DiskSpace;
use super::directory::{Directory, TierDir};
use super::eviction_queue::{EvictionQueue, QueueSlot};
use super::files::TierFiles;
use super::partial_table::PartialTable;
use super::policy::{Eviction, Limit};
use super::pool::PoolCapacity;
use super::shards::Shards;

/// Limits and eviction policy of a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TierSettings {
    pub(crate) limit: Limit,
    pub(crate) eviction: Eviction,
}

/// The settings in use.
#[derive(Debug)]
pub(crate) struct CurrentSettings {
    /// Held while they are changed, over a scan of the directory; the outermost of all locks.
    pub(super) current: Mutex<TierSettings>,
    pub(super) files: Arc<TierFiles>,
    pub(super) accounting: Arc<SpaceAccounting>,
    pub(super) queue: Arc<QueueSlot>,
    pub(super) shards: Arc<Shards>,
    pub(super) partials: Arc<PartialTable>,
    pub(super) pool: Option<Arc<PoolCapacity>>,
}

impl CurrentSettings {
    pub(super) fn get(&self) -> TierSettings {
        *self.current.lock()
    }

    /// Applies other settings, after the startup scan. Blocks.
    ///
    /// # Errors
    /// The file system's; the settings are in use all the same, as far as they were applied.
    pub(crate) fn apply(&self, settings: TierSettings) -> io::Result<()> {
        let mut current = self.current.lock();
        if *current == settings {
            return Ok(());
        }
        let capacity = self.capacity(&self.files.directory(), settings.limit)?;
        self.accounting.set_capacity(capacity);
        *current = settings;
        self.accounting.return_surplus();
        if settings.eviction == Eviction::Never {
            self.queue.set(None);
            return Ok(());
        }
        self.queue
            .set(Some(EvictionQueue::new(settings.eviction, capacity.bytes)));
        let costs = *self.accounting.costs();
        for id in self.partials.ids() {
            if let Some(size_bytes) = self.partials.size_bytes(id) {
                self.queue.insert(id, costs.partial(size_bytes));
            }
        }
        for shard in 0..SHARDS {
            for place in [TierDir::Objects, TierDir::Unverified] {
                for (id, size_bytes) in self.shards.objects(place, shard)? {
                    self.queue.insert(id, costs.object(size_bytes));
                }
            }
        }
        Ok(())
    }

    /// The capacity that a limit means on the tier's file system.
    pub(super) fn capacity(&self, directory: &Directory, limit: Limit) -> io::Result<DiskSpace> {
        let statistics = fstatvfs(directory.root())?;
        let used = self.accounting.totals().used;
        let available = DiskSpace {
            bytes: used
                .bytes
                .saturating_add(statistics.f_bavail.saturating_mul(statistics.f_frsize)),
            // Some file systems create inodes as they are needed, and report 0.
            inodes: if statistics.f_files == 0 {
                u64::MAX
            } else {
                used.inodes.saturating_add(statistics.f_favail)
            },
        };
        let disk_bytes = statistics.f_blocks.saturating_mul(statistics.f_frsize);
        // A shared capacity is given out by the pool, however much is free now.
        let most = self
            .pool
            .as_ref()
            .map_or(available.bytes, |pool| pool.capacity_bytes().min(disk_bytes));
        let bytes = limit.bytes.map_or(most, |limit| match self.pool {
            Some(_) => limit.min(most),
            None => limit.min(disk_bytes),
        });
        Ok(DiskSpace {
            bytes,
            inodes: limit.inodes.unwrap_or(available.inodes),
        })
    }
}
