//! CachePools: workers with the same tiers, on the nodes that a selector matches.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::ByteQuantity;

/// Desired state of a CachePool.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "millpond.io",
    version = "v1alpha1",
    kind = "CachePool",
    plural = "cachepools",
    shortname = "cpool",
    category = "millpond",
    status = "CachePoolStatus",
    derive = "PartialEq",
    cel,
    doc = "A CachePool caches the data of Datasets on the nodes that it selects: one cache worker per node, each with the same tiers of memory and disk.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.workers",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Workers",
        type_ = "integer",
        json_path = ".status.workers",
        description = "Desired workers"
    ),
    printcolumn(
        name = "Ready",
        type_ = "integer",
        json_path = ".status.readyWorkers",
        description = "Ready workers"
    ),
    printcolumn(
        name = "Capacity",
        type_ = "string",
        json_path = ".status.capacity",
        description = "Total capacity"
    ),
    printcolumn(
        name = "Used",
        type_ = "string",
        json_path = ".status.used",
        description = "Bytes used"
    ),
    printcolumn(
        name = "Datasets",
        type_ = "integer",
        json_path = ".status.datasets",
        description = "Datasets in the pool"
    ),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct CachePoolSpec {
    /// Labels of the nodes that get a worker. Default: every node. Mutable: workers are created and deleted, and a new
    /// worker starts with an empty cache.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,

    /// Taints that workers tolerate, as in a pod. Default: none. Mutable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,

    /// Number of selected nodes that get a worker. Default: all of them. Mutable, also by `kubectl scale`; nodes that have a
    /// worker are chosen first, then others by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub replicas: Option<i32>,

    /// Where a worker caches data, fastest first: at most one tier of each medium, one of them Disk. Capacities are mutable;
    /// the path of a tier is not, since its data would be left behind.
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["medium"]))]
    #[x_kube(
        validation = Rule::new("self.exists(t, t.medium == 'Disk')").message("one tier must have the medium Disk: catalogs and large files are stored there"),
        validation = Rule::new("self.all(t, !oldSelf.exists(o, o.medium == t.medium) || oldSelf.exists(o, o.medium == t.medium && has(o.path) == has(t.path) && (!has(t.path) || o.path == t.path)))").message("the path of a tier cannot be changed: create another pool")
    )]
    pub tiers: Vec<Tier>,

    /// CPU and memory of the worker's container, as in a pod. Default: requests of 100m CPU and 256Mi memory, no limits.
    /// Mutable: workers restart one after the other, with their cached data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

/// Memory or disk of each worker.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.medium != 'Disk' || has(self.path)").message("a tier with the medium Disk needs a path, for example /mnt/nvme0/millpond"),
    validation = Rule::new("self.medium == 'Disk' || !has(self.minFreePercent)").message("minFreePercent is for a tier with the medium Disk"),
    validation = Rule::new("!has(self.path) || (self.path.startsWith('/') && !self.path.contains('..'))").message("path must be absolute and without ..")
)]
pub struct Tier {
    /// Memory (a tmpfs of the node, not counted against any pod) or Disk (a directory of the node).
    pub medium: Medium,

    /// Directory on the node, below one of the host directories that the installation allows. Required for Disk, without
    /// effect for Memory. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub path: Option<String>,

    /// Maximum bytes of the tier, in-flight data included, for example 3Ti. Eviction starts at 95 %. Mutable.
    pub capacity: ByteQuantity,

    /// Percent of the disk's file system kept free, so that the kubelet evicts no pods. Below it Datasets with an eviction
    /// policy evict, others store nothing new. Default 20 on a disk of the kubelet or container runtime, else 0. Mutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 90))]
    pub min_free_percent: Option<i32>,
}

/// Media of tiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Medium {
    /// A tmpfs.
    Memory,
    /// A directory on a disk.
    Disk,
}

/// Observed state of a CachePool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CachePoolStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Pending, Ready, Degraded or Failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<PoolPhase>,

    /// Desired workers.
    #[serde(default)]
    pub workers: i32,

    /// Ready workers.
    #[serde(default)]
    pub ready_workers: i32,

    /// Datasets in the pool.
    #[serde(default)]
    pub datasets: i32,

    /// Total capacity of the workers, without what is withheld (see the condition CapacityUsable).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<ByteQuantity>,

    /// Bytes used, rounded down to a percent of the capacity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<ByteQuantity>,

    /// Label selector of the pool's worker pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// Conditions: Ready, CapacityUsable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Phases of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PoolPhase {
    /// No worker is ready.
    Pending,
    /// All workers are ready.
    Ready,
    /// Some workers are ready.
    Degraded,
    /// The spec is invalid: see the conditions.
    Failed,
}
