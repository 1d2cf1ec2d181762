//! What a tier's bytes and inodes are promised to.
//!
//! Whoever is about to write asks here first: a [`SpaceReservation`] is taken from what is left, and only then a file is made.
//! So the sum of what is on disk and what is under way never passes the capacity. What is evicted stays counted
//! until its inode is gone.
//!
//! What a file costs follows from its size alone ([`Costs`]). Objects that were deleted behind our back are found by
//! [`SpaceAccounting::rescan`], shard by shard; a shard is one of the 1,024 directories that objects are spread over.
//!
//! Where several tiers share a capacity, a promise takes from the pool as well, and every change is told to it
//! (`share.rs`). The accounts' lock comes before the pool's.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use millpond_core::ObjectId;
use parking_lot::{Mutex, MutexGuard};

use super::costs::{Costs, DiskSpace};
use super::directory::Place;
use super::pool::PoolCapacity;
use super::pool_share::PoolShare;

/// The directories below `objects/`.
pub(crate) const SHARDS: usize = 1024;

/// The pseudo shard of `partial/` and `seals/`, which are flat.
const FLAT: usize = SHARDS;

/// What a tier holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) capacity: DiskSpace,
    pub(crate) used: DiskSpace,
    pub(crate) objects: u64,
    pub(crate) object_bytes: u64,
}

/// What a walk found in one shard.
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
    /// Names that are there or promised.
    entries: u64,
    /// What is charged for its directories: objects and landing, or partial and seals.
    directories: [DiskSpace; 2],
    /// What is published in it.
    found: ShardScan,
    /// Publishing and unlinking under way, and how often there was some.
    changing: u32,
    changes: u64,
}

/// The shards in which there was ever anything; most of a small Dataset's are as new. 1,024 of them would be 90 KiB.
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
    /// The part of a capacity that others share; `None`: nobody does.
    share: Option<PoolShare>,
}

/// The accounts while they are changed: the share follows when they are closed.
struct AccountsGuard<'a>(MutexGuard<'a, State>);

impl Deref for AccountsGuard<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

impl DerefMut for AccountsGuard<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.0
    }
}

impl Drop for AccountsGuard<'_> {
    fn drop(&mut self) {
        let State {
            capacity,
            used,
            aside,
            share,
            ..
        } = &mut *self.0;
        if let Some(share) = share {
            share.settle(used.plus(*aside).bytes, capacity.bytes);
        }
    }
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
    /// Accounts with `fixed` taken for good. Nothing can be promised before [`set_capacity`](Self::set_capacity).
    pub(crate) fn new(costs: Costs, fixed: DiskSpace, pool: Option<Arc<PoolCapacity>>) -> Arc<Self> {
        let state = State {
            capacity: DiskSpace::default(),
            used: fixed,
            aside: DiskSpace::default(),
            shards: Shards::default(),
            totals: ShardScan::default(),
            share: pool.map(PoolShare::new),
        };
        Arc::new(Self {
            costs,
            state: Mutex::new(state),
        })
    }

    fn books(&self) -> AccountsGuard<'_> {
        AccountsGuard(self.state.lock())
    }

    pub(crate) const fn costs(&self) -> &Costs {
        &self.costs
    }

    pub(crate) fn set_capacity(&self, capacity: DiskSpace) {
        self.books().capacity = capacity;
    }

    pub(crate) fn set_aside(&self, aside: DiskSpace) {
        self.books().aside = aside;
    }

    pub(crate) fn totals(&self) -> Totals {
        let state = self.books();
        Totals {
            capacity: state.capacity,
            used: state.used.plus(state.aside),
            objects: state.totals.objects,
            object_bytes: state.totals.object_bytes,
        }
    }

    /// Whether nothing is published in a shard.
    pub(crate) fn is_empty(&self, shard: usize) -> bool {
        self.books().shards.get(shard).found.objects == 0
    }

    /// Whether others have taken what this tier could hold, so that `wanted` does not fit.
    pub(crate) fn is_pool_exhausted(&self, wanted: DiskSpace) -> bool {
        let state = self.books();
        state.used.plus(state.aside).plus(wanted).fits(state.capacity) && !state.has_share(wanted)
    }

    /// Keeps what is freed in this tier's share of the pool, until the guard is dropped.
    pub(crate) fn evicting(self: &Arc<Self>) -> EvictionScope {
        if let Some(share) = &mut self.books().share {
            share.evicts();
        }
        EvictionScope {
            ledger: Arc::clone(self),
        }
    }

    /// Gives what was evicted and not used back to the pool.
    pub(crate) fn return_surplus(&self) {
        if let Some(share) = &mut self.books().share {
            share.forget_slack();
        }
    }

    /// All that an object's promise takes: its own cost, and what its names add to directories.
    pub(crate) fn wanted(&self, id: ObjectId, cost: DiskSpace, seal_is_file: bool) -> DiskSpace {
        self.books().wanted(&self.costs, id, cost, seal_is_file)
    }

    /// Promises `cost` to an object, or nothing where it does not fit within `capacity`, which is at most the tier's.
    pub(crate) fn promise(
        self: &Arc<Self>,
        id: ObjectId,
        cost: DiskSpace,
        seal_is_file: bool,
        capacity: DiskSpace,
    ) -> Option<SpaceReservation> {
        let mut state = self.books();
        let wanted = state.wanted(&self.costs, id, cost, seal_is_file);
        if !state.used.plus(state.aside).plus(wanted).fits(capacity) {
            return None;
        }
        if let Some(share) = &mut state.share {
            if !share.try_take(wanted.bytes) {
                return None;
            }
            share.promised(cost.bytes);
        }
        state.enter(&self.costs, shard_of(id));
        if seal_is_file {
            state.enter(&self.costs, FLAT);
        }
        state.used = state.used.plus(cost);
        Some(SpaceReservation {
            ledger: Arc::clone(self),
            id,
            cost,
            unwritten_bytes: cost.bytes,
            seal_is_file,
            kept: false,
        })
    }

    /// Counts an object that is there already, whether it fits or not.
    pub(crate) fn count(&self, id: ObjectId, size_bytes: u64) {
        let cost = self.costs.object(size_bytes);
        let mut state = self.books();
        state.enter(&self.costs, shard_of(id));
        if self.costs.seal_is_file(size_bytes) {
            state.enter(&self.costs, FLAT);
        }
        state.used = state.used.plus(cost);
        state.published(shard_of(id), cost, size_bytes);
    }

    /// Promises a partial object what it takes already, whether it fits or not.
    pub(crate) fn count_partial(self: &Arc<Self>, id: ObjectId, size_bytes: u64) -> SpaceReservation {
        let cost = self.costs.partial(size_bytes);
        let mut state = self.books();
        state.enter(&self.costs, shard_of(id));
        state.enter(&self.costs, FLAT);
        state.used = state.used.plus(cost);
        SpaceReservation {
            ledger: Arc::clone(self),
            id,
            cost,
            unwritten_bytes: 0,
            seal_is_file: true,
            kept: false,
        }
    }

    /// Charges what a directory of a shard takes already. Those of `unverified/` are charged for good.
    pub(crate) fn count_directory(&self, shard: usize, place: Place, taken: DiskSpace) {
        let mut state = self.books();
        let [objects, landing] = &mut state.shards.get_mut(shard).directories;
        let charged = match place {
            Place::Objects => Some(objects),
            Place::Landing => Some(landing),
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
    }

    /// Says that an object's inode is gone.
    pub(crate) fn inode_freed(&self, id: ObjectId, size_bytes: u64) {
        let cost = self.costs.object(size_bytes);
        let mut state = self.books();
        state.unpublished(shard_of(id), cost, size_bytes);
        state.used = state.used.minus(cost);
        state.leave(shard_of(id));
        if self.costs.seal_is_file(size_bytes) {
            state.leave(FLAT);
        }
    }

    /// Turns a counted object into a promise: it becomes a partial one again, or is about to be gone.
    pub(crate) fn reopen(self: &Arc<Self>, id: ObjectId, size_bytes: u64) -> SpaceReservation {
        let cost = self.costs.object(size_bytes);
        self.books().unpublished(shard_of(id), cost, size_bytes);
        SpaceReservation {
            ledger: Arc::clone(self),
            id,
            cost,
            unwritten_bytes: 0,
            seal_is_file: self.costs.seal_is_file(size_bytes),
            kept: false,
        }
    }

    /// Announces that names in a shard are about to change, until the guard is dropped.
    pub(crate) fn changing(self: &Arc<Self>, shard: usize) -> ShardChangeGuard {
        self.books().shards.get_mut(shard).changing += 1;
        ShardChangeGuard {
            ledger: Arc::clone(self),
            shard,
        }
    }

    /// Sets a shard right after a walk of it, unless it changed meanwhile. Says whether that worked.
    pub(crate) fn recount<E>(
        &self,
        shard: usize,
        walk: impl FnOnce() -> Result<ShardScan, E>,
    ) -> Result<bool, E> {
        let before = self.books().shards.get(shard);
        let found = walk()?;
        let mut state = self.books();
        let counted = state.shards.get_mut(shard);
        if before.changing > 0 || counted.changing > 0 || before.changes != counted.changes {
            return Ok(false);
        }
        let was = std::mem::replace(&mut counted.found, found);
        counted.entries = (counted.entries + found.objects).saturating_sub(was.objects);
        state.used = state.used.plus(found.cost).minus(was.cost);
        state.totals.objects = (state.totals.objects + found.objects).saturating_sub(was.objects);
        state.totals.object_bytes =
            (state.totals.object_bytes + found.object_bytes).saturating_sub(was.object_bytes);
        Ok(true)
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

/// The tier evicts for its own sake.
#[derive(Debug)]
pub(crate) struct EvictionScope {
    ledger: Arc<SpaceAccounting>,
}

impl Drop for EvictionScope {
    fn drop(&mut self) {
        if let Some(share) = &mut self.ledger.books().share {
            share.evicted();
        }
    }
}

impl State {
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

    fn enter(&mut self, costs: &Costs, shard: usize) {
        self.used = self.used.plus(self.growth(costs, shard));
        let shard = self.shards.get_mut(shard);
        let wanted = shard.wanted(costs);
        shard.directories = shard
            .directories
            .map(|charged| charged.plus(wanted.minus(charged)));
        shard.entries += 1;
    }

    /// What was promised is on the file system, or will not be.
    fn written(&mut self, bytes: u64) {
        if let Some(share) = &mut self.share {
            share.written(bytes);
        }
    }

    fn leave(&mut self, shard: usize) {
        let shard = self.shards.get_mut(shard);
        shard.entries = shard.entries.saturating_sub(1);
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

/// Room that was promised to one object; given back when dropped.
#[derive(Debug)]
pub(crate) struct SpaceReservation {
    ledger: Arc<SpaceAccounting>,
    id: ObjectId,
    cost: DiskSpace,
    /// What of it the file system does not count yet.
    unwritten_bytes: u64,
    seal_is_file: bool,
    /// Whether a published object has taken it over.
    kept: bool,
}

impl SpaceReservation {
    /// Says that the file system counts all of it.
    pub(crate) fn written(&mut self) {
        let bytes = std::mem::take(&mut self.unwritten_bytes);
        self.ledger.books().written(bytes);
    }

    /// Turns the promise into a published object, whose cost is what its size says. What was promised beyond that
    /// (the map of a partial object whose seal is an attribute now) must be off the disk already.
    pub(crate) fn publish(mut self, size_bytes: u64) {
        self.kept = true;
        let cost = self.ledger.costs.object(size_bytes);
        let mut state = self.ledger.books();
        state.written(self.unwritten_bytes);
        state.used = state.used.minus(self.cost).plus(cost);
        state.published(shard_of(self.id), cost, size_bytes);
        if self.seal_is_file && !self.ledger.costs.seal_is_file(size_bytes) {
            state.leave(FLAT);
        }
    }
}

impl Drop for SpaceReservation {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let mut state = self.ledger.books();
        state.written(self.unwritten_bytes);
        state.used = state.used.minus(self.cost);
        state.leave(shard_of(self.id));
        if self.seal_is_file {
            state.leave(FLAT);
        }
    }
}

/// Names in one shard are changing.
#[derive(Debug)]
pub(crate) struct ShardChangeGuard {
    ledger: Arc<SpaceAccounting>,
    shard: usize,
}

impl Drop for ShardChangeGuard {
    fn drop(&mut self) {
        let mut state = self.ledger.books();
        let shard = state.shards.get_mut(self.shard);
        shard.changing = shard.changing.saturating_sub(1);
        shard.changes += 1;
    }
}
