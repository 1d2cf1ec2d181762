//! Where data is kept: workers with the same tiers, on the nodes that a selector names.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::ByteQuantity;

/// What a pool is to be.
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
    doc = "A CachePool keeps the data of Datasets on the nodes that it selects: one cache worker a node, each with the same tiers of memory and disk.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.workers",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Workers",
        type_ = "integer",
        json_path = ".status.workers",
        description = "Workers there are to be"
    ),
    printcolumn(
        name = "Ready",
        type_ = "integer",
        json_path = ".status.readyWorkers",
        description = "Workers that serve"
    ),
    printcolumn(
        name = "Capacity",
        type_ = "string",
        json_path = ".status.capacity",
        description = "What all workers can hold"
    ),
    printcolumn(
        name = "Used",
        type_ = "string",
        json_path = ".status.used",
        description = "What they hold"
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
    /// Labels that a node must have to get a worker. Empty: every node. May be changed: workers come and go, data is
    /// fetched again where it is missing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,

    /// Taints that workers tolerate, as in a pod. Empty: none. May be changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,

    /// How many of the selected nodes get a worker. Left out: all of them. May be changed, also by
    /// `kubectl scale`; which nodes give up their worker first, Millpond chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub replicas: Option<i32>,

    /// Where a worker keeps data, fastest first: at most one tier of each medium. Capacities may be changed; the medium
    /// and the path of a tier may not, since its data would be left behind: make another pool.
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["medium"]))]
    #[x_kube(
        validation = Rule::new("self.exists(t, t.medium == 'Disk')").message("one tier must have the medium Disk: catalogs and large files are kept there"),
        validation = Rule::new("self.all(t, !oldSelf.exists(o, o.medium == t.medium) || oldSelf.exists(o, o.medium == t.medium && has(o.path) == has(t.path) && (!has(t.path) || o.path == t.path)))").message("the path of a tier cannot be changed: make another pool")
    )]
    pub tiers: Vec<Tier>,

    /// CPU and memory of the worker's container, as in a pod. Left out: 100m of CPU and 256Mi of memory
    /// are asked for, and nothing is limited. May be changed: workers
    /// are restarted one after the other, and find their data again.
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
    /// Memory (a tmpfs of the node, which counts against no pod) or Disk (a directory of the node).
    pub medium: Medium,

    /// The directory on the node, below one of the host directories that the installation allows. Needed for Disk; left
    /// out for Memory: Millpond's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub path: Option<String>,

    /// How much of it a worker may use at most, for example 3Ti. Never exceeded, data in flight included: Datasets that
    /// evict begin to at 95 % of it.
    pub capacity: ByteQuantity,

    /// Of a disk: how many percent of its file system stay free, whatever the capacity, so that the kubelet has no reason to
    /// evict pods. Where less is free, Datasets that evict make room and others take in nothing new. Left out: 20 where the
    /// kubelet or the container runtime have their directories on it, 0 on a disk of its own. May be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 90))]
    pub min_free_percent: Option<i32>,
}

/// What a tier is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Medium {
    /// A tmpfs.
    Memory,
    /// A directory on a disk.
    Disk,
}

/// What a pool is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CachePoolStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Pending, Ready, Degraded or Failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<PoolPhase>,

    /// Workers that there are to be.
    #[serde(default)]
    pub workers: i32,

    /// Workers that serve.
    #[serde(default)]
    pub ready_workers: i32,

    /// Datasets in the pool.
    #[serde(default)]
    pub datasets: i32,

    /// What all workers together can hold, without what they cannot use (see the condition CapacityUsable).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<ByteQuantity>,

    /// What they hold, rounded to the percent of the capacity, so that it changes seldom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<ByteQuantity>,

    /// The label selector of the pool's worker pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// What is true of the pool: Ready, CapacityUsable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A pool in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PoolPhase {
    /// No worker serves yet.
    Pending,
    /// All workers serve.
    Ready,
    /// Some workers serve.
    Degraded,
    /// The spec cannot be carried out.
    Failed,
}
