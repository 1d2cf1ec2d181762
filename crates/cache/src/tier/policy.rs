//! How a tier behaves: its medium, its limits, what it evicts and when, and the rates of its background work.

use std::time::Duration;

/// Kind of a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// A tmpfs.
    Memory,
    /// A directory on disk.
    Disk,
}

/// Limits of a tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Bytes of disk; `None`: what the file system had free, and what the tier used, when it was opened.
    pub bytes: Option<u64>,
    /// Inodes; `None`: as for bytes.
    pub inodes: Option<u64>,
}

/// Eviction policy of a tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Eviction {
    /// Nothing is evicted: cached objects stay, others bypass the cache.
    #[default]
    Never,
    /// The least recently used object is evicted first.
    Lru,
    /// The least often used object is evicted first.
    TinyLfu,
}

/// Whether a reservation may evict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservePolicy {
    /// The reservation evicts other objects, where the tier evicts.
    MayEvict,
    /// The reservation takes only free space below the level at which eviction begins.
    FreeOnly,
}

/// Rates of the background work.
#[derive(Clone, Copy, Debug)]
pub struct BackgroundRates {
    /// How long a link in `landing/` stays.
    pub landing_ttl: Duration,
    /// Bytes a second that the scrubber reads.
    pub scrub_bytes_per_second: u64,
    /// Bytes a second that are verified in the background after a crash of the machine.
    pub verify_bytes_per_second: u64,
}

impl Default for BackgroundRates {
    fn default() -> Self {
        // The scrubber reads a full 1 TiB tier in about 18 hours.
        Self {
            landing_ttl: Duration::from_secs(120),
            scrub_bytes_per_second: 16 << 20,
            verify_bytes_per_second: 256 << 20,
        }
    }
}
