//! In which order objects go: moka's LRU or TinyLFU, by their bytes on disk.
//!
//! The cache holds nothing but ids and weights; its capacity is the tier's high watermark. What moka evicts is only
//! named here, as a victim: whether it goes is the evictor's to find out.

use std::collections::VecDeque;
use std::sync::Arc;

use millpond_core::ObjectId;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;

use super::costs::DiskSpace;
use super::policy::Eviction;

/// Of the tier's capacity: beyond it, moka names victims.
const HIGH_WATERMARK_PERCENT: u64 = 95;

/// Moka's weights are 32 bits: with 4 KiB units they reach 16 TiB.
const UNIT_BYTES: u64 = 4096;

/// An object, or the ballast that [`EvictionQueue::add_pressure`] puts in.
type Key = Option<ObjectId>;

/// The order of one tier.
#[derive(Debug)]
pub(crate) struct EvictionQueue {
    cache: Cache<Key, u32>,
    /// Named by moka and still there. No longer than the number of objects in the tier.
    victims: Arc<Mutex<VecDeque<ObjectId>>>,
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

/// Of a tier's capacity, what can be taken without anything being evicted for it.
pub(crate) const fn spare(capacity: DiskSpace) -> DiskSpace {
    DiskSpace {
        bytes: capacity.bytes / 100 * HIGH_WATERMARK_PERCENT,
        inodes: capacity.inodes / 100 * HIGH_WATERMARK_PERCENT,
    }
}

impl EvictionQueue {
    pub(crate) fn new(eviction: Eviction, capacity_bytes: u64) -> Self {
        let victims = Arc::new(Mutex::new(VecDeque::new()));
        let named = Arc::clone(&victims);
        let policy = match eviction {
            Eviction::Never | Eviction::Lru => EvictionPolicy::lru(),
            Eviction::TinyLfu => EvictionPolicy::tiny_lfu(),
        };
        let cache = Cache::builder()
            .max_capacity(capacity_bytes / 100 * HIGH_WATERMARK_PERCENT / UNIT_BYTES)
            .weigher(|_, weight| *weight)
            .eviction_policy(policy)
            .eviction_listener(move |key: Arc<Key>, _, cause| {
                if let (RemovalCause::Size, Some(id)) = (cause, *key) {
                    named.lock().push_back(id);
                }
            })
            .build();
        Self { cache, victims }
    }

    /// Adds an object, or one that was spared again.
    pub(crate) fn insert(&self, id: ObjectId, bytes: u64) {
        self.cache.insert(Some(id), units(bytes));
    }

    /// Forgets an object.
    pub(crate) fn remove(&self, id: ObjectId) {
        self.cache.invalidate(&Some(id));
    }

    /// Counts a use.
    pub(crate) fn touch(&self, id: ObjectId) {
        self.cache.get(&Some(id));
    }

    /// What the objects in it take.
    pub(crate) fn weight_bytes(&self) -> u64 {
        self.add_pressure(0);
        self.cache.weighted_size().saturating_mul(UNIT_BYTES)
    }

    /// Takes at most `limit` of the objects that should go.
    pub(crate) fn take_victims(&self, limit: usize) -> Vec<ObjectId> {
        self.cache.run_pending_tasks();
        let mut victims = self.victims.lock();
        let count = victims.len().min(limit);
        victims.drain(..count).collect()
    }

    /// Makes the order name victims for so many bytes more than the objects in it take, until it is called with 0.
    pub(crate) fn add_pressure(&self, bytes: u64) {
        self.cache.insert(None, 0);
        self.cache.run_pending_tasks();
        if bytes == 0 {
            self.cache.invalidate(&None);
        } else {
            // Admission (TinyLFU) judges only what is new: an entry that grows takes from the least recently used.
            self.cache.insert(None, units(bytes));
        }
        self.cache.run_pending_tasks();
    }
}
