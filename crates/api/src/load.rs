//! DataLoads: prefetch a Dataset or a part of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::ByteQuantity;

/// Desired state of a DataLoad.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "millpond.io",
    version = "v1alpha1",
    kind = "DataLoad",
    plural = "dataloads",
    shortname = "dl",
    category = "millpond",
    namespaced,
    status = "DataLoadStatus",
    derive = "PartialEq",
    cel,
    doc = "A DataLoad loads a Dataset, or a part of it, into the cache of its pool. The workers of the pool run it: no pod is started.",
    printcolumn(name = "Dataset", type_ = "string", json_path = ".spec.dataset"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Rate", type_ = "string", json_path = ".status.rate"),
    printcolumn(name = "ETA", type_ = "string", json_path = ".status.eta"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.policy == 'Cron') == has(self.schedule)").message("schedule goes with policy Cron, and only with it"),
    validation = Rule::new("self.dataset == oldSelf.dataset").message("dataset cannot be changed: create another DataLoad"),
    validation = Rule::new("self.policy == oldSelf.policy").message("policy cannot be changed: create another DataLoad")
)]
pub struct DataLoadSpec {
    /// Name of the Dataset, in the same namespace. Immutable.
    #[schemars(length(min = 1, max = 253))]
    pub dataset: String,

    /// Globs over paths in the mount, for example /train/**. Default: all files. Mutable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub paths: Vec<String>,

    /// Once (default), or Cron: repeatedly, by the schedule. Immutable.
    #[serde(default)]
    pub policy: LoadPolicy,

    /// When a Cron load runs: minute, hour, day of month, month, day of week, in UTC, for example "0 3 * * *". Mutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 256))]
    pub schedule: Option<String>,

    /// Bytes per second of all workers together, for example 10Gi. Default: no limit. Mutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_limit: Option<ByteQuantity>,

    /// Seconds after its end until a load with policy Once is deleted. Default: it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<i64>,
}

/// How often a load runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LoadPolicy {
    /// One run.
    #[default]
    Once,
    /// A run at each time of the schedule.
    Cron,
}

/// Observed state of a DataLoad.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataLoadStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Pending, Loading, Complete, Failed, or Waiting for its schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<LoadPhase>,

    /// Done / selected bytes, for example 42.0%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,

    /// Mean rate of the run, for example 12Mi/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,

    /// Time left at that rate, for example 3m20s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<String>,

    /// Selected files, summed over the workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_total: Option<i64>,

    /// Of these, cached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_done: Option<i64>,

    /// Bytes of the selected files, summed over the workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<i64>,

    /// Of these, cached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_done: Option<i64>,

    /// Files that failed, summed over the workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_failed: Option<i64>,

    /// The first files that failed, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub failed_paths: Vec<FailedPath>,

    /// When the run started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,

    /// When the run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,

    /// Next run of a Cron load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_run_at: Option<Time>,

    /// Conditions: Complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A file that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FailedPath {
    /// Path of the file in the mount.
    pub path: String,
    /// Why it failed.
    pub reason: String,
}

/// Phases of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LoadPhase {
    /// The Dataset is not ready.
    Pending,
    /// It waits for its schedule.
    Waiting,
    /// A run is in progress.
    Loading,
    /// All files are cached.
    Complete,
    /// The spec is invalid, or the run ended with failed files.
    Failed,
}
