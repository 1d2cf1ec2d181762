//! What a Dataset is opened with.

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

/// Objects up to this size are fetched whole on their first lookup: above it, waiting for all of an object before
/// its first byte is read would be felt.
const SMALL_OBJECT_BYTES: u64 = 8 << 20;

/// Below this the parts of the read path could wait for each other.
pub(super) const MIN_MEMORY_BYTES: u64 = 64 << 20;

/// How to open a [`Dataset`](super::Dataset).
#[derive(Clone, Debug)]
pub struct DatasetOptions {
    /// Its name, for metrics.
    pub name: String,
    /// Its namespace, for metrics; empty outside Kubernetes.
    pub namespace: String,
    /// Where its truth lies: one source at least.
    pub mounts: Vec<MountOptions>,
    /// What of this process and its host the sources may use beside their own options. The default: nothing.
    pub environment: Environment,
    /// The HTTP clients that it shares with other Datasets of this process. The default: those of its own sources.
    pub clients: Clients,
    /// Whom the cache directory belongs to: it is refused for another. `None`: the sources that it was first opened
    /// with, which then cannot be changed without emptying it.
    pub identity: Option<String>,
    /// The cache directory: the disk tier and the catalogs.
    pub cache_directory: PathBuf,
    /// What the disk tier may hold.
    pub disk_limit: Limit,
    /// The capacity of the disk tier that other Datasets share; `None`: the disk tier is this one's alone.
    pub disk_pool: Option<Arc<PoolCapacity>>,
    /// The memory tier; `None`: there is none.
    pub memory_tier: Option<MemoryTier>,
    /// What makes room in a full tier.
    pub eviction: Eviction,
    /// The kernel's boot id.
    pub boot_id: String,
    /// Whom the files belong to.
    pub owner: Owner,
    /// How often the source is listed again; `None`: only on request, and after a start.
    pub refresh_interval: Option<Duration>,
    /// Lists the source before the first catalog is shown, even where there is one from before.
    pub fresh: bool,
    /// The least number of a new generation: where the directory is lost, numbers go on above those that somebody has
    /// seen.
    pub first_generation: Generation,
    /// At least this long between listings that a changed object causes.
    pub changed_interval: Duration,
    /// Objects up to this size are fetched whole.
    pub small_object_bytes: u64,
    /// What all buffers on the read path may take together; at least 64 MiB.
    pub memory_bytes: u64,
    /// Where these come from, with those of other Datasets. `None`: they are this one's alone.
    pub common_memory: Option<SharedBudget>,
    /// Whether a reader that waits unusually long sends a second request for the same bytes. Without it every byte
    /// is asked for once, as long as nothing fails.
    pub hedging: bool,
    /// How the source is read. Its `budget` is set by the Dataset.
    pub origin: OriginOptions,
    /// How the source is listed.
    pub listing: ListOptions,
}

impl DatasetOptions {
    /// Options with the defaults for everything that has one.
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
            common_memory: None,
            hedging: true,
            origin: OriginOptions::default(),
            listing: ListOptions::default(),
        }
    }
}
