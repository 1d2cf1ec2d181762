//! A tier's share of a capacity that several tiers have in common.

use std::sync::Arc;

use super::pool::PoolCapacity;

/// A tier's share of the pool: `counted + surplus` at all times.
#[derive(Debug)]
pub(super) struct PoolShare {
    pool: Arc<PoolCapacity>,
    /// What the tier uses or has reserved.
    counted: u64,
    /// What it evicted for itself, and has not used yet.
    surplus: u64,
    /// Running passes that evict for the tier itself.
    evicting: u32,
}

impl PoolShare {
    pub(super) const fn new(pool: Arc<PoolCapacity>) -> Self {
        Self {
            pool,
            counted: 0,
            surplus: 0,
            evicting: 0,
        }
    }

    /// Returns whether so much more could be taken.
    pub(super) fn has_space(&self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.surplus);
        more == 0 || more <= self.pool.free_bytes()
    }

    /// Takes so much, of the surplus first, if there is so much.
    pub(super) fn try_take(&mut self, bytes: u64) -> bool {
        let own = bytes.min(self.surplus);
        if !self.pool.try_take(bytes - own) {
            return false;
        }
        self.surplus -= own;
        self.counted = self.counted.saturating_add(bytes);
        true
    }

    /// Notes bytes that are reserved and going to be written.
    pub(super) fn add_pending(&self, bytes: u64) {
        self.pool.add_pending(bytes);
    }

    /// Notes that pending bytes are written now, or will never be.
    pub(super) fn remove_pending(&self, bytes: u64) {
        self.pool.remove_pending(bytes);
    }

    /// Sets the share to what the tier uses now, which is at most `capacity` where it has space.
    pub(super) fn adjust(&mut self, now: u64, capacity: u64) {
        let before = self.counted.saturating_add(self.surplus);
        if self.evicting > 0 {
            self.surplus = self.surplus.saturating_add(self.counted.saturating_sub(now));
        }
        self.surplus = self.surplus.min(capacity.saturating_sub(now));
        self.counted = now;
        let after = self.counted.saturating_add(self.surplus);
        if before != after {
            self.pool.adjust(before, after);
        }
    }

    /// Keeps what is freed in the share, until [`end_eviction`](Self::end_eviction) was called as often.
    pub(super) const fn begin_eviction(&mut self) {
        self.evicting += 1;
    }

    pub(super) const fn end_eviction(&mut self) {
        self.evicting = self.evicting.saturating_sub(1);
    }

    /// Returns the surplus to the pool, with the next [`adjust`](Self::adjust).
    pub(super) const fn return_surplus(&mut self) {
        // `before` there includes it.
        self.counted = self.counted.saturating_add(self.surplus);
        self.surplus = 0;
    }
}

impl Drop for PoolShare {
    fn drop(&mut self) {
        self.pool.adjust(self.counted.saturating_add(self.surplus), 0);
    }
}
