//! The options of a Dataset.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millpond_catalog::Owner;
use millpond_core::Generation;

use super::mounts::MountOptions;
use crate::fetch::{OriginOptions, SharedBudget};
use crate::listing::ListOptions;
use crate::source::{Clients, Environment};
use crate::store::{Eviction, Limit, MemoryTier, PoolCapacity};

/// The largest object that is fetched completely on its first lookup: above it, the wait for the complete object
/// before its first byte would be noticeable.
const SMALL_OBJECT_BYTES: u64 = 8 << 20;

/// With less, tasks on the read path could wait for each other.
pub(super) const MIN_MEMORY_BYTES: u64 = 64 << 20;

/// How to open a [`Dataset`](super::Dataset).
#[derive(Clone, Debug)]
pub struct DatasetOptions {
    /// Its name, for metrics.
    pub name: String,
    /// Its namespace, for metrics; empty outside Kubernetes.
    pub namespace: String,
    /// Its sources: at least one.
    pub mounts: Vec<MountOptions>,
    /// What sources may use of this process and its host beside their own options. Default: nothing.
    pub environment: Environment,
    /// The HTTP clients that it shares with other Datasets of this process. Default: its own sources share theirs.
    pub clients: Clients,
    /// The owner recorded in the cache directory; opening it with another one fails. `None`: the sources that it
    /// was first opened with, which then cannot change without emptying it.
    pub identity: Option<String>,
    /// The cache directory: the disk tier and the catalogs.
    pub cache_directory: PathBuf,
    /// The limits of the disk tier.
    pub disk_limit: Limit,
    /// The capacity that the disk tier shares with other Datasets; `None`: the disk tier shares none.
    pub disk_pool: Option<Arc<PoolCapacity>>,
    /// The memory tier; `None`: there is none.
    pub memory_tier: Option<MemoryTier>,
    /// The eviction policy of the tiers.
    pub eviction: Eviction,
    /// The kernel's boot id.
    pub boot_id: String,
    /// The owner of the files.
    pub owner: Owner,
    /// How often the source is listed; `None`: only on request, and after a start.
    pub refresh_interval: Option<Duration>,
    /// Whether the source is listed before the first catalog is published, even if there is one of the previous
    /// run.
    pub fresh: bool,
    /// The lowest number of a new generation: if the directory is lost, numbers continue above those that a driver
    /// has seen.
    pub first_generation: Generation,
    /// The shortest interval between listings that a changed object causes.
    pub changed_interval: Duration,
    /// The largest object that is fetched completely on its first lookup.
    pub small_object_bytes: u64,
    /// The limit of all buffers on the read path; at least 64 MiB.
    pub memory_bytes: u64,
    /// The budget that these share with other Datasets; `None`: they share none.
    pub shared_memory: Option<SharedBudget>,
    /// Whether a reader that waits unusually long sends a second request for the same bytes. Without it every byte
    /// is requested once, unless a request fails.
    pub hedging: bool,
    /// How the source is read. The Dataset sets its `budget`.
    pub origin: OriginOptions,
    /// How the source is listed.
    pub listing: ListOptions,
}

impl DatasetOptions {
    /// Returns options with the defaults for everything that has one.
    pub fn new(mounts: Vec<MountOptions>, cache_directory: PathBuf, boot_id: String) -> Self {
        Self {
            name: "default".to_owned(),
            namespace: String::new(),
            mounts,
            environment: Environment::default(),
            clients: Clients::default(),
            identity: None,
            cache_directory,
            disk_limit: Limit::default(),
            disk_pool: None,
            memory_tier: None,
            eviction: Eviction::Never,
            boot_id,
            owner: Owner::default(),
            refresh_interval: None,
            fresh: false,
            first_generation: Generation(1),
            changed_interval: Duration::from_secs(30),
            small_object_bytes: SMALL_OBJECT_BYTES,
            memory_bytes: 256 << 20,
            shared_memory: None,
            hedging: true,
            origin: OriginOptions::default(),
            listing: ListOptions::default(),
        }
    }
}
