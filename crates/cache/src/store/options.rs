//! How a store is opened and configured, and what it reports of its tiers.

use std::path::PathBuf;
use std::sync::Arc;

use crate::tier::{Eviction, Limit, Medium, PoolCapacity};

/// The tier in memory: a tmpfs, mounted by the caller.
#[derive(Clone, Debug)]
pub struct MemoryTier {
    /// Its mount point.
    pub path: PathBuf,
    /// Its capacity in bytes.
    pub bytes: u64,
    /// The capacity that it shares with other stores; `None`: it is alone on the tmpfs.
    pub pool: Option<Arc<PoolCapacity>>,
}

/// How to open a store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The cache directory; created if it does not exist.
    pub disk: PathBuf,
    /// Its limits.
    pub disk_limit: Limit,
    /// The capacity that it shares with other stores; `None`: it is alone on its disk.
    pub disk_pool: Option<Arc<PoolCapacity>>,
    /// `None`: no memory tier.
    pub memory: Option<MemoryTier>,
    /// The eviction policy.
    pub eviction: Eviction,
    /// The kernel's boot id: another one without a clean stop means that the machine crashed.
    pub boot_id: String,
    /// What the directory caches (the canonical source). Opening it with another identity fails.
    pub identity: String,
}

/// Settings of a store that may change while it is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// The limits of the disk tier.
    pub disk_limit: Limit,
    /// The capacity of the memory tier in bytes, where there is one; `None`: what its file system has.
    pub memory_bytes: Option<u64>,
    /// The eviction policy.
    pub eviction: Eviction,
}

/// Usage of a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierUsage {
    /// Which tier.
    pub medium: Medium,
    /// Its capacity in bytes.
    pub capacity_bytes: u64,
    /// Bytes that are used or reserved: objects, partial files, directories, evicted objects that are still in use.
    pub used_bytes: u64,
    /// Its capacity in inodes.
    pub capacity_inodes: u64,
    /// Inodes that are used or reserved.
    pub used_inodes: u64,
    /// Complete objects, verified or not.
    pub objects: u64,
    /// Bytes of content of the complete objects.
    pub object_bytes: u64,
}
