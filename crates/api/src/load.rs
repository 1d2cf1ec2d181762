//! An order to fetch a Dataset, or a part of it, ahead.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::ByteQuantity;

/// What is to be fetched, and when.
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
    doc = "A DataLoad fetches a Dataset, or a part of it, into its pool before pods need it. The pool's workers do it: no pod is started.",
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
    validation = Rule::new("self.dataset == oldSelf.dataset").message("dataset cannot be changed: make another DataLoad"),
    validation = Rule::new("self.policy == oldSelf.policy").message("policy cannot be changed: make another DataLoad")
)]
pub struct DataLoadSpec {
    /// Name of the Dataset, in the same namespace. Cannot be changed.
    #[schemars(length(min = 1, max = 253))]
    pub dataset: String,

    /// Globs over paths in the mount, for example /train/**. Empty: everything. May be changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub paths: Vec<String>,

    /// Once (the default), or Cron: again and again by the schedule. Cannot be changed.
    #[serde(default)]
    pub policy: LoadPolicy,

    /// When a Cron load runs: minute, hour, day of month, month, day of week, in UTC, for example "0 3 * * *".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 256))]
    pub schedule: Option<String>,

    /// Bytes a second of all workers together, for example 10Gi. Left out: no limit. May be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_limit: Option<ByteQuantity>,

    /// Seconds after its end at which a load with policy Once is deleted. Left out: it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<i64>,
}

/// How often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LoadPolicy {
    /// Once.
    #[default]
    Once,
    /// By a schedule.
    Cron,
}

/// How far a load is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataLoadStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Pending, Loading, Complete, Failed, or Waiting for its schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<LoadPhase>,

    /// Bytes that are there of those that are to be there, for example 42.0%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,

    /// Bytes a second of late, for example 1.2Gi/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,

    /// What is left of it at that rate, for example 3m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<String>,

    /// Files that are to be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_total: Option<i64>,

    /// Of these, files that are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_done: Option<i64>,

    /// Bytes that are to be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<i64>,

    /// Of these, bytes that are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_done: Option<i64>,

    /// Files that could not be fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_failed: Option<i64>,

    /// The first of these, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub failed_paths: Vec<FailedPath>,

    /// When the run began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,

    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,

    /// When a Cron load runs next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_run_at: Option<Time>,

    /// What is true of the load: Complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A file that could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FailedPath {
    /// Its path in the mount.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// A load in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LoadPhase {
    /// The Dataset is not ready, or the load has not begun.
    Pending,
    /// It waits for its schedule.
    Waiting,
    /// Under way.
    Loading,
    /// Everything is there.
    Complete,
    /// It ended, and not everything is there.
    Failed,
}
