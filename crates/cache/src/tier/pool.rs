//! The capacity of a tier that the stores of several Datasets share.
//!
//! Each store has a share: the space that it uses or has reserved, and the space that it evicted for itself. The shares
//! together never pass the capacity. A store whose eviction finds the rest taken evicts its own objects; nothing of
//! another store is ever evicted for it, and the space that it frees in this way stays in its share, so that a tenant who
//! reads everything once cannot live off the others' evictions.
//!
//! What is on the tier counts from when its store was opened: until all stores that were opened have finished their scans,
//! none can reserve. Open all before reading from any. A share is released when its store is dropped: remove the store's
//! files before, if they are not to stay.
//!
//! Where the disk is short of space for others, less than the capacity is given out: see [`PoolCapacity::limit_to_spare`].

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// Bytes that several stores share.
#[derive(Debug)]
pub struct PoolCapacity {
    capacity_bytes: u64,
    accounts: Mutex<Accounts>,
    /// Stores whose startup scans are not finished.
    scanning: watch::Sender<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Accounts {
    used_bytes: u64,
    /// What of it is reserved, and not counted by a file system yet.
    pending_bytes: u64,
    /// Upper bound of what is given out, which is no more than the capacity.
    limit_bytes: u64,
}

impl PoolCapacity {
    /// A capacity of which nothing is used.
    pub fn new(capacity_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            capacity_bytes,
            accounts: Mutex::new(Accounts {
                used_bytes: 0,
                pending_bytes: 0,
                limit_bytes: capacity_bytes,
            }),
            scanning: watch::Sender::new(0),
        })
    }

    /// Returns the whole capacity.
    pub const fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// Returns the sum of all shares. Above the capacity where that was found on disk, or catalogs grew.
    pub fn used_bytes(&self) -> u64 {
        self.accounts.lock().used_bytes
    }

    /// Limits what is given out to what fits into `spare_bytes` of the file system beside what is used, and to the capacity.
    /// Returns how much of what is used, or pending, should be evicted. All stores must be
    /// [`scanned`](Self::scanned), or too little is given out until the next call.
    pub fn limit_to_spare(&self, spare_bytes: i64) -> u64 {
        let mut accounts = self.accounts.lock();
        let spare = spare_bytes.saturating_sub_unsigned(accounts.pending_bytes);
        accounts.limit_bytes = accounts
            .used_bytes
            .saturating_add_signed(spare)
            .min(self.capacity_bytes);
        spare.min(0).unsigned_abs()
    }

    /// Notes bytes that are reserved and going to be written.
    pub(super) fn add_pending(&self, bytes: u64) {
        self.accounts.lock().pending_bytes += bytes;
    }

    /// Notes that pending bytes are written now, or will never be.
    pub(super) fn remove_pending(&self, bytes: u64) {
        let mut accounts = self.accounts.lock();
        accounts.pending_bytes = accounts.pending_bytes.saturating_sub(bytes);
    }

    /// Returns what of the capacity is not given out, by the last [`limit_to_spare`](Self::limit_to_spare).
    pub fn withheld_bytes(&self) -> u64 {
        self.capacity_bytes
            .saturating_sub(self.accounts.lock().limit_bytes)
    }

    /// Returns the bytes that are in no share.
    pub(super) fn free_bytes(&self) -> u64 {
        let accounts = self.accounts.lock();
        accounts.limit_bytes.saturating_sub(accounts.used_bytes)
    }

    /// Adds to a share, if so much is free.
    pub(super) fn try_take(&self, bytes: u64) -> bool {
        let mut accounts = self.accounts.lock();
        match accounts.used_bytes.checked_add(bytes) {
            Some(more) if bytes == 0 || more <= accounts.limit_bytes => {
                accounts.used_bytes = more;
                true
            }
            _ => false,
        }
    }

    /// Sets a share that was `before` to `now`.
    pub(super) fn adjust(&self, before: u64, now: u64) {
        let mut accounts = self.accounts.lock();
        accounts.used_bytes = accounts.used_bytes.saturating_sub(before).saturating_add(now);
    }

    /// Announces the startup scan of a store.
    pub(super) fn add_scan(self: &Arc<Self>) -> PendingScan {
        self.scanning.send_modify(|stores| *stores += 1);
        PendingScan {
            pool: Arc::clone(self),
        }
    }

    /// Waits until the startup scans of all stores are finished.
    pub async fn scanned(&self) {
        // The sender is part of this value, so it cannot be dropped.
        self.scanning
            .subscribe()
            .wait_for(|stores| *stores == 0)
            .await
            .ok();
    }
}

/// A startup scan that is not finished until it is dropped.
#[derive(Debug)]
pub(super) struct PendingScan {
    pool: Arc<PoolCapacity>,
}

impl Drop for PendingScan {
    fn drop(&mut self) {
        self.pool
            .scanning
            .send_modify(|stores| *stores = stores.saturating_sub(1));
    }
}
