//! Counts of what happened in a store since it was opened, over all of its tiers.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of what happened since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreCounters {
    /// Objects evicted.
    pub evicted_objects: u64,
    /// Their bytes on disk.
    pub evicted_bytes: u64,
    /// Victims of eviction that stayed because a process had them open or mapped.
    pub spared_objects: u64,
    /// Objects and blocks whose checksum did not match: each is a miss.
    pub corrupt: u64,
    /// Objects that were verified after a crash of the machine.
    pub verified_objects: u64,
    /// Objects and partial files refused because a tier was full.
    pub refused: u64,
    /// Failures of the file system.
    pub failures: u64,
    /// Calls of `Views::release` that failed.
    pub release_failures: u64,
}

/// [`StoreCounters`] while they count.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) evicted_objects: AtomicU64,
    pub(crate) evicted_bytes: AtomicU64,
    pub(crate) spared_objects: AtomicU64,
    pub(crate) corrupt: AtomicU64,
    pub(crate) verified_objects: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) release_failures: AtomicU64,
}

impl Counters {
    pub(crate) fn snapshot(&self) -> StoreCounters {
        let Self {
            evicted_objects,
            evicted_bytes,
            spared_objects,
            corrupt,
            verified_objects,
            refused,
            failures,
            release_failures,
        } = self;
        StoreCounters {
            evicted_objects: evicted_objects.load(Ordering::Relaxed),
            evicted_bytes: evicted_bytes.load(Ordering::Relaxed),
            spared_objects: spared_objects.load(Ordering::Relaxed),
            corrupt: corrupt.load(Ordering::Relaxed),
            verified_objects: verified_objects.load(Ordering::Relaxed),
            refused: refused.load(Ordering::Relaxed),
            failures: failures.load(Ordering::Relaxed),
            release_failures: release_failures.load(Ordering::Relaxed),
        }
    }
}
