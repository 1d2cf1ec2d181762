//! The order in which objects are evicted: moka's LRU or TinyLFU, by their bytes on disk.
//!
//! The moka cache holds nothing but ids and weights; its capacity is the tier's high watermark. An object that moka evicts is
//! only named as a victim: the evictor finds out whether it can be evicted.

use std::collections::VecDeque;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
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

/// An object, or the ballast that [`EvictionQueue::set_pressure`] puts in.
type Key = Option<ObjectId>;

/// The eviction queue of one tier.
#[derive(Debug)]
pub(crate) struct EvictionQueue {
    cache: Cache<Key, u32>,
    /// Named by moka and not taken yet. No longer than the number of objects in the tier.
    victims: Arc<Mutex<VecDeque<ObjectId>>>,
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

/// Of a tier's capacity, what can be reserved without an eviction.
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

    /// Adds an object, or returns one that was spared.
    pub(crate) fn insert(&self, id: ObjectId, bytes: u64) {
        self.cache.insert(Some(id), units(bytes));
    }

    /// Removes an object.
    pub(crate) fn remove(&self, id: ObjectId) {
        self.cache.invalidate(&Some(id));
    }

    /// Counts a use.
    pub(crate) fn touch(&self, id: ObjectId) {
        self.cache.get(&Some(id));
    }

    /// The bytes of the objects in the queue.
    pub(crate) fn weight_bytes(&self) -> u64 {
        self.set_pressure(0);
        self.cache.weighted_size().saturating_mul(UNIT_BYTES)
    }

    /// Takes at most `limit` victims.
    pub(crate) fn take_victims(&self, limit: usize) -> Vec<ObjectId> {
        self.cache.run_pending_tasks();
        let mut victims = self.victims.lock();
        let count = victims.len().min(limit);
        victims.drain(..count).collect()
    }

    /// Makes the queue name victims for so many bytes more than its objects take, until it is called with 0.
    pub(crate) fn set_pressure(&self, bytes: u64) {
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

/// The queue of a tier while it evicts; empty until the startup scan, and while its policy is [`Eviction::Never`].
#[derive(Debug, Default)]
pub(crate) struct QueueSlot(ArcSwapOption<EvictionQueue>);

impl QueueSlot {
    pub(crate) fn get(&self) -> Option<Arc<EvictionQueue>> {
        self.0.load_full()
    }

    pub(super) fn set(&self, queue: Option<EvictionQueue>) {
        self.0.store(queue.map(Arc::new));
    }

    /// Adds an object, where there is a queue.
    pub(crate) fn insert(&self, id: ObjectId, cost: DiskSpace) {
        if let Some(queue) = self.get() {
            queue.insert(id, cost.bytes);
        }
    }

    /// Counts a use, where there is a queue.
    pub(crate) fn touch(&self, id: ObjectId) {
        if let Some(queue) = self.get() {
            queue.touch(id);
        }
    }
}
