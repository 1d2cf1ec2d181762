//! The capacity of a tier that the stores of several Datasets share.
//!
//! Each store has a share: what it holds or has promised, and what it evicted to make room for itself. The shares
//! together never pass the capacity. A store whose eviction finds the rest taken makes room among its own; nothing of
//! another's ever goes for it, and what it frees in this way stays in its share, so that a tenant who reads
//! everything once cannot live off the others' evictions.
//!
//! What is on the tier counts from when its store was opened: until all that were opened have counted what they hold, none
//! gives room out. Open all before reading from any. A share goes back when its store is dropped: remove what it
//! holds before, if it is not to stay.
//!
//! Where the disk is short of room for others, less than the capacity is given out: see [`PoolCapacity::limit_to_spare`].

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// Bytes that several stores share.
#[derive(Debug)]
pub struct PoolCapacity {
    capacity_bytes: u64,
    accounts: Mutex<Accounts>,
    /// Stores that have not yet counted what they hold.
    counting: watch::Sender<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Accounts {
    used_bytes: u64,
    /// What of it is promised, and no file system counts it yet.
    unwritten_bytes: u64,
    /// What is given out at most, which is no more than the capacity.
    limit_bytes: u64,
}

impl PoolCapacity {
    /// A capacity of which nothing is taken.
    pub fn new(capacity_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            capacity_bytes,
            accounts: Mutex::new(Accounts {
                used_bytes: 0,
                unwritten_bytes: 0,
                limit_bytes: capacity_bytes,
            }),
            counting: watch::Sender::new(0),
        })
    }

    /// All of it.
    pub const fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// The sum of all shares. Above the capacity where that was found on disk, or catalogs grew.
    pub fn used_bytes(&self) -> u64 {
        self.accounts.lock().used_bytes
    }

    /// From now on no more is given out than fits into `spare_bytes` of the file system beside what is there, nor more than the
    /// capacity. Returns how much of what is there, or on its way, should go. What is used has to be
    /// [`scanned`](Self::scanned), or too little is given out until the next call.
    pub fn limit_to_spare(&self, spare_bytes: i64) -> u64 {
        let mut accounts = self.accounts.lock();
        let spare = spare_bytes.saturating_sub_unsigned(accounts.unwritten_bytes);
        accounts.limit_bytes = accounts
            .used_bytes
            .saturating_add_signed(spare)
            .min(self.capacity_bytes);
        spare.min(0).unsigned_abs()
    }

    /// Takes note of what is going to be written.
    pub(crate) fn add_pending(&self, bytes: u64) {
        self.accounts.lock().unwritten_bytes += bytes;
    }

    /// That is written now, or will never be.
    pub(crate) fn remove_pending(&self, bytes: u64) {
        let mut accounts = self.accounts.lock();
        accounts.unwritten_bytes = accounts.unwritten_bytes.saturating_sub(bytes);
    }

    /// What of the capacity is not given out, by the last [`limit_to_spare`](Self::limit_to_spare).
    pub fn withheld_bytes(&self) -> u64 {
        self.capacity_bytes
            .saturating_sub(self.accounts.lock().limit_bytes)
    }

    /// What no store has.
    pub(crate) fn free_bytes(&self) -> u64 {
        let accounts = self.accounts.lock();
        accounts.limit_bytes.saturating_sub(accounts.used_bytes)
    }

    /// Adds to a share, if so much is free.
    pub(crate) fn try_take(&self, bytes: u64) -> bool {
        let mut accounts = self.accounts.lock();
        match accounts.used_bytes.checked_add(bytes) {
            Some(more) if bytes == 0 || more <= accounts.limit_bytes => {
                accounts.used_bytes = more;
                true
            }
            _ => false,
        }
    }

    /// Sets a share that was `before` to what it truly is.
    pub(crate) fn settle(&self, before: u64, now: u64) {
        let mut accounts = self.accounts.lock();
        accounts.used_bytes = accounts.used_bytes.saturating_sub(before).saturating_add(now);
    }

    /// Announces a store that is going to count what it holds.
    pub(crate) fn counting(self: &Arc<Self>) -> PendingScan {
        self.counting.send_modify(|stores| *stores += 1);
        PendingScan {
            pool: Arc::clone(self),
        }
    }

    /// Waits until all stores have counted.
    pub async fn counted(&self) {
        // The sender is ours, so it cannot be gone.
        self.counting
            .subscribe()
            .wait_for(|stores| *stores == 0)
            .await
            .ok();
    }
}

/// A store that has not yet counted what it holds.
#[derive(Debug)]
pub(crate) struct PendingScan {
    pool: Arc<PoolCapacity>,
}

impl Drop for PendingScan {
    fn drop(&mut self) {
        self.pool
            .counting
            .send_modify(|stores| *stores = stores.saturating_sub(1));
    }
}
