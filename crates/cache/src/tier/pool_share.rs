//! A tier's share of a capacity that several tiers have in common.

use std::sync::Arc;

use super::pool::PoolCapacity;

/// What of the pool is this tier's: `counted + slack` at all times.
#[derive(Debug)]
pub(super) struct PoolShare {
    pool: Arc<PoolCapacity>,
    /// What the tier holds or has promised.
    counted: u64,
    /// What it evicted for itself, and has not used yet.
    slack: u64,
    /// Passes that evict for the tier's own sake.
    evicting: u32,
}

impl PoolShare {
    pub(super) const fn new(pool: Arc<PoolCapacity>) -> Self {
        Self {
            pool,
            counted: 0,
            slack: 0,
            evicting: 0,
        }
    }

    /// Whether so much more could be taken.
    pub(super) fn has_space(&self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.slack);
        more == 0 || more <= self.pool.free_bytes()
    }

    /// Takes so much, of what was evicted for it first, if there is so much.
    pub(super) fn try_take(&mut self, bytes: u64) -> bool {
        let own = bytes.min(self.slack);
        if !self.pool.try_take(bytes - own) {
            return false;
        }
        self.slack -= own;
        self.counted = self.counted.saturating_add(bytes);
        true
    }

    /// Takes note of what is going to be written.
    pub(super) fn promised(&self, bytes: u64) {
        self.pool.add_pending(bytes);
    }

    /// That is written now, or will never be.
    pub(super) fn written(&self, bytes: u64) {
        self.pool.remove_pending(bytes);
    }

    /// Takes note of what the tier holds now, which is at most `capacity` where it has room.
    pub(super) fn settle(&mut self, now: u64, capacity: u64) {
        let before = self.counted.saturating_add(self.slack);
        if self.evicting > 0 {
            self.slack = self.slack.saturating_add(self.counted.saturating_sub(now));
        }
        self.slack = self.slack.min(capacity.saturating_sub(now));
        self.counted = now;
        let after = self.counted.saturating_add(self.slack);
        if before != after {
            self.pool.settle(before, after);
        }
    }

    /// From now on, until as many calls of [`evicted`](Self::evicted), what is freed stays in the share.
    pub(super) const fn evicts(&mut self) {
        self.evicting += 1;
    }

    pub(super) const fn evicted(&mut self) {
        self.evicting = self.evicting.saturating_sub(1);
    }

    /// Gives back what is not used.
    pub(super) const fn forget_slack(&mut self) {
        // The next settling tells the pool: see `before` there.
        self.counted = self.counted.saturating_add(self.slack);
        self.slack = 0;
    }
}

impl Drop for PoolShare {
    fn drop(&mut self) {
        self.pool.settle(self.counted.saturating_add(self.slack), 0);
    }
}
