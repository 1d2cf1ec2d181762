//! Space accounting of a tier: what its bytes and inodes are used by or reserved for.
//!
//! A writer first takes a [`SpaceReservation`] from what is left, and only then creates a file. So the sum of what is on disk
//! and what is being written never passes the capacity. An evicted object stays counted until its inode is freed.
//!
//! What a file costs follows from its size alone ([`Costs`]). Objects that another process deleted are found by
//! [`SpaceAccounting::rescan`], shard by shard; a shard is one of the 1,024 directories that objects are spread over.
//!
//! Where several tiers share a capacity, a reservation takes from the pool as well, and every change of the accounts adjusts
//! the tier's share (`pool_share.rs`). The accounts' lock comes before the pool's.

use std::collections::HashMap;
use std::sync::Arc;

use millpond_core::ObjectId;
use parking_lot::Mutex;

use super::costs::{Costs, DiskSpace};
use super::directory::TierDir;
use super::pool::PoolCapacity;
use super::pool_share::PoolShare;

/// The directories below `objects/`.
pub(crate) const SHARDS: usize = 1024;

/// The pseudo shard of `partial/` and `seals/`, which are flat.
const FLAT: usize = SHARDS;

/// Totals of a tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) capacity: DiskSpace,
    pub(crate) used: DiskSpace,
    pub(crate) objects: u64,
    pub(crate) object_bytes: u64,
}

/// What a scan found in one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShardScan {
    pub(crate) cost: DiskSpace,
    pub(crate) objects: u64,
    pub(crate) object_bytes: u64,
}

impl ShardScan {
    pub(crate) fn add(&mut self, cost: DiskSpace, size_bytes: u64) {
        self.cost = self.cost.plus(cost);
        self.objects += 1;
        self.object_bytes += size_bytes;
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Shard {
    /// Names that exist or are reserved.
    entries: u64,
    /// What is charged for its directories: objects and landing, or partial and seals.
    directories: [DiskSpace; 2],
    /// What is published in it.
    found: ShardScan,
    /// Publications and unlinkings in progress, and how many there were.
    changing: u32,
    changes: u64,
}

/// The shards that were ever used; most of a small Dataset's were not. 1,024 of them would be 90 KiB.
#[derive(Debug, Default)]
struct Shards(HashMap<usize, Shard>);

impl Shards {
    fn get(&self, shard: usize) -> Shard {
        self.0.get(&shard).copied().unwrap_or_default()
    }

    fn get_mut(&mut self, shard: usize) -> &mut Shard {
        self.0.entry(shard).or_default()
    }
}

#[derive(Debug)]
struct State {
    capacity: DiskSpace,
    used: DiskSpace,
    aside: DiskSpace,
    shards: Shards,
    totals: ShardScan,
    /// The share of the pool; `None`: the tier shares no capacity.
    share: Option<PoolShare>,
}

/// The accounts of one tier.
#[derive(Debug)]
pub(crate) struct SpaceAccounting {
    costs: Costs,
    state: Mutex<State>,
}

/// The shard of an object.
pub(crate) fn shard_of(id: ObjectId) -> usize {
    let [first, second, ..] = *id.as_bytes();
    usize::from(first) << 2 | usize::from(second) >> 6
}

impl SpaceAccounting {
    /// Accounts with `fixed` used for good. Nothing can be reserved before [`set_capacity`](Self::set_capacity).
    pub(crate) fn new(costs: Costs, fixed: DiskSpace, pool: Option<Arc<PoolCapacity>>) -> Arc<Self> {
        let mut state = State {
            capacity: DiskSpace::default(),
            used: fixed,
            aside: DiskSpace::default(),
            shards: Shards::default(),
            totals: ShardScan::default(),
            share: pool.map(PoolShare::new),
        };
        state.adjust_share();
        Arc::new(Self {
            costs,
            state: Mutex::new(state),
        })
    }

    /// Changes the accounts, and adjusts the tier's share of the pool to them.
    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let result = change(&mut state);
        state.adjust_share();
        result
    }

    pub(crate) const fn costs(&self) -> &Costs {
        &self.costs
    }

    pub(crate) fn set_capacity(&self, capacity: DiskSpace) {
        self.update(|state| state.capacity = capacity);
    }

    pub(crate) fn set_aside(&self, aside: DiskSpace) {
        self.update(|state| state.aside = aside);
    }

    pub(crate) fn totals(&self) -> Totals {
        let state = self.state.lock();
        Totals {
            capacity: state.capacity,
            used: state.used.plus(state.aside),
            objects: state.totals.objects,
            object_bytes: state.totals.object_bytes,
        }
    }

    /// Returns whether nothing is published in a shard.
    pub(crate) fn is_empty(&self, shard: usize) -> bool {
        self.state.lock().shards.get(shard).found.objects == 0
    }

    /// Returns whether other tiers have taken what this tier could use, so that `wanted` does not fit.
    pub(crate) fn is_pool_exhausted(&self, wanted: DiskSpace) -> bool {
        let state = self.state.lock();
        state.used.plus(state.aside).plus(wanted).fits(state.capacity) && !state.has_share(wanted)
    }

    /// Keeps what is freed in this tier's share of the pool, until the guard is dropped.
    pub(crate) fn evicting(self: &Arc<Self>) -> EvictionScope {
        if let Some(share) = &mut self.state.lock().share {
            share.begin_eviction();
        }
        EvictionScope {
            accounting: Arc::clone(self),
        }
    }

    /// Returns what was evicted and not used to the pool.
    pub(crate) fn return_surplus(&self) {
        self.update(|state| {
            if let Some(share) = &mut state.share {
                share.return_surplus();
            }
        });
    }

    /// All that an object's reservation takes: its own cost, and what its names add to directories.
    pub(crate) fn wanted(&self, id: ObjectId, cost: DiskSpace, seal_is_file: bool) -> DiskSpace {
        self.state.lock().wanted(&self.costs, id, cost, seal_is_file)
    }

    /// Reserves `cost` for an object, or nothing where it does not fit within `capacity`, which is at most the tier's.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        id: ObjectId,
        cost: DiskSpace,
        seal_is_file: bool,
        capacity: DiskSpace,
    ) -> Option<SpaceReservation> {
        self.update(|state| {
            let wanted = state.wanted(&self.costs, id, cost, seal_is_file);
            if !state.used.plus(state.aside).plus(wanted).fits(capacity) {
                return None;
            }
            if let Some(share) = &mut state.share {
                if !share.try_take(wanted.bytes) {
                    return None;
                }
                share.add_pending(cost.bytes);
            }
            state.enter_all(&self.costs, id, seal_is_file);
            state.used = state.used.plus(cost);
            Some(())
        })?;
        Some(SpaceReservation {
            accounting: Arc::clone(self),
            id,
            cost,
            pending_bytes: cost.bytes,
            seal_is_file,
            published: false,
        })
    }

    /// Counts an object that exists already, whether it fits or not.
    pub(crate) fn count(&self, id: ObjectId, size_bytes: u64) {
        let cost = self.costs.object(size_bytes);
        self.update(|state| {
            state.enter_all(&self.costs, id, self.costs.seal_is_file(size_bytes));
            state.used = state.used.plus(cost);
            state.published(shard_of(id), cost, size_bytes);
        });
    }

    /// Reserves what a partial object takes already, whether it fits or not.
    pub(crate) fn count_partial(self: &Arc<Self>, id: ObjectId, size_bytes: u64) -> SpaceReservation {
        let cost = self.costs.partial(size_bytes);
        self.update(|state| {
            state.enter_all(&self.costs, id, true);
            state.used = state.used.plus(cost);
        });
        SpaceReservation {
            accounting: Arc::clone(self),
            id,
            cost,
            pending_bytes: 0,
            seal_is_file: true,
            published: false,
        }
    }

    /// Charges what a directory of a shard takes already. Those of `unverified/` are charged for good.
    pub(crate) fn count_directory(&self, shard: usize, place: TierDir, taken: DiskSpace) {
        self.update(|state| {
            let [objects, landing] = &mut state.shards.get_mut(shard).directories;
            let charged = match place {
                TierDir::Objects => Some(objects),
                TierDir::Landing => Some(landing),
                _ => None,
            };
            let more = match charged {
                Some(charged) => {
                    let more = taken.minus(*charged);
                    *charged = charged.plus(more);
                    more
                }
                None => taken,
            };
            state.used = state.used.plus(more);
        });
    }

    /// Releases the space of an object whose inode is freed.
    pub(crate) fn inode_freed(&self, id: ObjectId, size_bytes: u64) {
        let cost = self.costs.object(size_bytes);
        self.update(|state| {
            state.unpublished(shard_of(id), cost, size_bytes);
            state.used = state.used.minus(cost);
            state.leave_all(id, self.costs.seal_is_file(size_bytes));
        });
    }

    /// Turns a counted object into a reservation: it becomes a partial one again, or is about to be freed.
    pub(crate) fn reopen(self: &Arc<Self>, id: ObjectId, size_bytes: u64) -> SpaceReservation {
        let cost = self.costs.object(size_bytes);
        self.state.lock().unpublished(shard_of(id), cost, size_bytes);
        SpaceReservation {
            accounting: Arc::clone(self),
            id,
            cost,
            pending_bytes: 0,
            seal_is_file: self.costs.seal_is_file(size_bytes),
            published: false,
        }
    }

    /// Notes that names in a shard are about to change, until the guard is dropped.
    pub(crate) fn changing(self: &Arc<Self>, shard: usize) -> ShardChangeGuard {
        self.state.lock().shards.get_mut(shard).changing += 1;
        ShardChangeGuard {
            accounting: Arc::clone(self),
            shard,
        }
    }

    /// Corrects the account of a shard after a scan of it, unless it changed meanwhile. Returns whether it was corrected.
    pub(crate) fn rescan<E>(
        &self,
        shard: usize,
        scan: impl FnOnce() -> Result<ShardScan, E>,
    ) -> Result<bool, E> {
        let before = self.state.lock().shards.get(shard);
        let found = scan()?;
        Ok(self.update(|state| {
            let counted = state.shards.get_mut(shard);
            if before.changing > 0 || counted.changing > 0 || before.changes != counted.changes {
                return false;
            }
            let was = std::mem::replace(&mut counted.found, found);
            counted.entries = (counted.entries + found.objects).saturating_sub(was.objects);
            state.used = state.used.plus(found.cost).minus(was.cost);
            state.totals.objects = (state.totals.objects + found.objects).saturating_sub(was.objects);
            state.totals.object_bytes =
                (state.totals.object_bytes + found.object_bytes).saturating_sub(was.object_bytes);
            true
        }))
    }
}

impl Shard {
    /// What each of its directories costs with one more name.
    fn wanted(&self, costs: &Costs) -> DiskSpace {
        DiskSpace {
            bytes: costs.directory(self.entries + 1),
            inodes: 1,
        }
    }
}

/// The tier evicts for itself.
#[derive(Debug)]
pub(crate) struct EvictionScope {
    accounting: Arc<SpaceAccounting>,
}

impl Drop for EvictionScope {
    fn drop(&mut self) {
        if let Some(share) = &mut self.accounting.state.lock().share {
            share.end_eviction();
        }
    }
}

impl State {
    /// Adjusts the tier's share of the pool to what it uses now.
    fn adjust_share(&mut self) {
        if let Some(share) = &mut self.share {
            share.adjust(self.used.plus(self.aside).bytes, self.capacity.bytes);
        }
    }

    fn has_share(&self, wanted: DiskSpace) -> bool {
        self.share
            .as_ref()
            .is_none_or(|share| share.has_space(wanted.bytes))
    }

    /// What one more name in a shard would add to the cost of its directories.
    fn growth(&self, costs: &Costs, shard: usize) -> DiskSpace {
        let shard = self.shards.get(shard);
        let [first, second] = shard
            .directories
            .map(|charged| shard.wanted(costs).minus(charged));
        first.plus(second)
    }

    fn wanted(&self, costs: &Costs, id: ObjectId, cost: DiskSpace, seal_is_file: bool) -> DiskSpace {
        let wanted = cost.plus(self.growth(costs, shard_of(id)));
        if seal_is_file {
            wanted.plus(self.growth(costs, FLAT))
        } else {
            wanted
        }
    }

    /// Charges the names of an object, and of its seal where that is a file.
    fn enter_all(&mut self, costs: &Costs, id: ObjectId, seal_is_file: bool) {
        self.enter(costs, shard_of(id));
        if seal_is_file {
            self.enter(costs, FLAT);
        }
    }

    fn enter(&mut self, costs: &Costs, shard: usize) {
        self.used = self.used.plus(self.growth(costs, shard));
        let shard = self.shards.get_mut(shard);
        let wanted = shard.wanted(costs);
        shard.directories = shard
            .directories
            .map(|charged| charged.plus(wanted.minus(charged)));
        shard.entries += 1;
    }

    /// Removes the names of an object, and of its seal where that is a file. What their directories are charged stays.
    fn leave_all(&mut self, id: ObjectId, seal_is_file: bool) {
        self.leave(shard_of(id));
        if seal_is_file {
            self.leave(FLAT);
        }
    }

    fn leave(&mut self, shard: usize) {
        let shard = self.shards.get_mut(shard);
        shard.entries = shard.entries.saturating_sub(1);
    }

    /// Notes that reserved bytes are on the file system, or will never be.
    fn remove_pending(&self, bytes: u64) {
        if let Some(share) = &self.share {
            share.remove_pending(bytes);
        }
    }

    fn published(&mut self, shard: usize, cost: DiskSpace, size_bytes: u64) {
        self.shards.get_mut(shard).found.add(cost, size_bytes);
        self.totals.add(cost, size_bytes);
    }

    fn unpublished(&mut self, shard: usize, cost: DiskSpace, size_bytes: u64) {
        let subtract = |found: &mut ShardScan| {
            found.cost = found.cost.minus(cost);
            found.objects = found.objects.saturating_sub(1);
            found.object_bytes = found.object_bytes.saturating_sub(size_bytes);
        };
        subtract(&mut self.shards.get_mut(shard).found);
        subtract(&mut self.totals);
    }
}

/// Space that is reserved for one object; released when dropped.
#[derive(Debug)]
pub(crate) struct SpaceReservation {
    accounting: Arc<SpaceAccounting>,
    id: ObjectId,
    cost: DiskSpace,
    /// What of it the file system does not count yet.
    pending_bytes: u64,
    seal_is_file: bool,
    /// Whether a published object has taken it over.
    published: bool,
}

impl SpaceReservation {
    /// Notes that the file system counts all of it.
    pub(crate) fn written(&mut self) {
        let bytes = std::mem::take(&mut self.pending_bytes);
        self.accounting.state.lock().remove_pending(bytes);
    }

    /// Turns the reservation into a published object, whose cost follows from its size. What was reserved beyond that
    /// (the map of a partial object whose seal is an attribute now) must be off the disk already.
    pub(crate) fn publish(mut self, size_bytes: u64) {
        self.published = true;
        let costs = &self.accounting.costs;
        let cost = costs.object(size_bytes);
        self.accounting.update(|state| {
            state.remove_pending(self.pending_bytes);
            state.used = state.used.minus(self.cost).plus(cost);
            state.published(shard_of(self.id), cost, size_bytes);
            if self.seal_is_file && !costs.seal_is_file(size_bytes) {
                state.leave(FLAT);
            }
        });
    }
}

impl Drop for SpaceReservation {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        self.accounting.update(|state| {
            state.remove_pending(self.pending_bytes);
            state.used = state.used.minus(self.cost);
            state.leave_all(self.id, self.seal_is_file);
        });
    }
}

/// Names in one shard are changing.
#[derive(Debug)]
pub(crate) struct ShardChangeGuard {
    accounting: Arc<SpaceAccounting>,
    shard: usize,
}

impl Drop for ShardChangeGuard {
    fn drop(&mut self) {
        let mut state = self.accounting.state.lock();
        let shard = state.shards.get_mut(self.shard);
        shard.changing = shard.changing.saturating_sub(1);
        shard.changes += 1;
    }
}
