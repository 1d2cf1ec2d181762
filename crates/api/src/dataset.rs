//! Datasets: a read-only tree of files from one or more sources.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::{ByteQuantity, Span};

/// Desired state of a Dataset.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "millpond.io",
    version = "v1alpha1",
    kind = "Dataset",
    plural = "datasets",
    shortname = "ds",
    category = "millpond",
    namespaced,
    status = "DatasetStatus",
    derive = "PartialEq",
    cel,
    doc = "A Dataset is a tree of files in object storage that pods mount by the PVC of the same name, and that a CachePool caches near them.",
    validation = Rule::new("self.metadata.name.size() <= 63").message("the name of a Dataset may have 63 characters: its PVC has the same name"),
    selectable = ".spec.pool",
    printcolumn(name = "UFS Total Size", type_ = "string", json_path = ".status.totalSize", description = "Size of all files at the sources (the under file system, UFS)"),
    printcolumn(name = "Cached", type_ = "string", json_path = ".status.cached", description = "Of these, bytes cached on the worker that has most"),
    printcolumn(name = "Cache Capacity", type_ = "string", json_path = ".status.cacheCapacity", description = "Capacity for the Dataset on one worker"),
    printcolumn(name = "Cached Percentage", type_ = "string", json_path = ".status.cachedPercentage"),
    printcolumn(name = "Hit Ratio", type_ = "string", json_path = ".status.hitRatio", description = "Bytes read from the cache / bytes read"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Files", type_ = "integer", json_path = ".status.files", priority = 1),
    printcolumn(name = "Pool", type_ = "string", json_path = ".status.pool", priority = 1),
    printcolumn(name = "Workers", type_ = "integer", json_path = ".status.workers", priority = 1),
    printcolumn(name = "Generation", type_ = "integer", json_path = ".status.catalogGeneration", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.pool) || !has(oldSelf.pool)").message("pool cannot be unset: what is cached would be lost"),
    validation = Rule::new("!has(oldSelf.pool) || !has(self.pool) || self.pool == oldSelf.pool").message("pool cannot be changed: create another Dataset in the other pool")
)]
pub struct DatasetSpec {
    /// Name of the CachePool that caches the data. Default: the pool with the annotation
    /// millpond.io/is-default-pool: "true". Immutable once set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub pool: Option<String>,

    /// Sources of the files, each mounted at its path. Mutable: pods that start later see the change, running pods only
    /// with view Live.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    #[x_kube(
        validation = Rule::new("self.size() == 1 || self.all(m, has(m.name) || has(m.path))").message("with several mounts each needs a name or a path"),
        validation = Rule::new("self.all(m, self.exists_one(o, (has(o.path) ? o.path : has(o.name) ? '/' + o.name : '/') == (has(m.path) ? m.path : has(m.name) ? '/' + m.name : '/')))").message("two mounts cannot have the same path")
    )]
    pub mounts: Vec<Mount>,

    /// Reserved, no effect yet: every worker that serves reads caches its own copy. Default 1. Mutable.
    #[serde(default = "DatasetSpec::default_replicas")]
    #[schemars(range(min = 1, max = 16))]
    pub replicas: i32,

    /// Maximum bytes of this Dataset on each worker, for example 2Ti. Default: the pool's capacity. Mutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<ByteQuantity>,

    /// Eviction policy at the quota. Never (default): cached objects stay, others bypass the cache, which is best for
    /// training in epochs. LRU: the least recently used object is evicted. TinyLFU: the least frequently used one. Mutable.
    #[serde(default)]
    pub eviction: Eviction,

    /// OnCreate: load all files after the first listing, without a DataLoad. Default Never. Mutable.
    #[serde(default)]
    pub prefetch: Prefetch,

    /// When the sources are listed again. Default: only on request (annotation millpond.io/refresh with a new value)
    /// and when a read finds that a file has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Refresh>,

    /// Snapshot (default): a pod sees the listing that was the newest when it started, until it ends. Live: it sees each new
    /// listing. Mutable; applies to pods that start later.
    #[serde(default)]
    pub view: View,

    /// Access modes of the PVC; data is read-only in any case. Default ReadOnlyMany. Immutable.
    #[serde(default = "DatasetSpec::default_access_modes")]
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("accessModes cannot be changed: a PVC's are fixed"))]
    pub access_modes: Vec<AccessMode>,

    /// Owner, group and mode of all files. Default root, readable by all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,

    /// Other namespaces whose pods may mount the Dataset, by an inline CSI volume with the attribute
    /// dataset: namespace/name. Default: none. Mutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_with: Option<SharedWith>,
}

impl DatasetSpec {
    const fn default_replicas() -> i32 {
        1
    }

    fn default_access_modes() -> Vec<AccessMode> {
        vec![AccessMode::ReadOnlyMany]
    }
}

/// One source of a Dataset.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.secretRef) && has(self.serviceAccountName))").message("secretRef and serviceAccountName exclude each other: credentials come from one of them"),
    validation = Rule::new("!has(self.path) || (self.path.startsWith('/') && !self.path.split('/').exists(p, p == '..' || p == '.'))").message("path must be absolute and without . or ..")
)]
pub struct Mount {
    /// URL of the source: s3://bucket/prefix, gs://, az:// or abfs://, http(s)://.
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new("self.matches('^(s3|gs|az|abfs|abfss|http|https)://.+')").message("mountPoint must begin with s3://, gs://, az://, abfs://, http:// or https:// and name a bucket or a server"))]
    pub mount_point: String,

    /// Name of the source, for its path and in messages. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = "^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
    )]
    pub name: Option<String>,

    /// Path of its files in the mount. Default: "/" for a source without a name, else "/<name>".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: Option<String>,

    /// Options of the source, with the names of object_store, for example region, endpoint. Credentials go into a Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64), inner(length(max = 2048)))]
    #[x_kube(validation = Rule::new("!self.exists(k, k.lowerAscii().contains('secret') || k.lowerAscii().contains('password') || k.lowerAscii().contains('token'))").message("credentials do not belong in options, which every reader of the Dataset can read: put them into a Secret and name it in secretRef"))]
    pub options: BTreeMap<String, String>,

    /// Secret in the Dataset's namespace, whose keys are names of object_store (aws_access_key_id, aws_secret_access_key,
    /// ...), also ca.crt (a private CA, PEM) and proxy_url. Read again every minute, every 5 s while something is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretReference>,

    /// ServiceAccount in the Dataset's namespace whose token authenticates to the source (web identity), instead of a
    /// Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,

    /// Only files that match one of these globs, relative to the source, for example **/*.jpg. Default: all files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub include: Vec<String>,

    /// Files that match one of these globs are left out. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub exclude: Vec<String>,
}

impl Mount {
    /// Returns the path of the source in the mount.
    pub fn path_in_tree(&self) -> String {
        match (&self.path, &self.name) {
            (Some(path), _) => path.clone(),
            (None, Some(name)) => format!("/{name}"),
            (None, None) => "/".to_owned(),
        }
    }
}

/// The name of a Secret in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretReference {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Eviction policies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Eviction {
    /// Cached objects stay, others bypass the cache.
    #[default]
    Never,
    /// The least recently used object is evicted.
    #[serde(rename = "LRU")]
    Lru,
    /// The least frequently used object is evicted.
    #[serde(rename = "TinyLFU")]
    TinyLfu,
}

/// When all files are prefetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Prefetch {
    /// Only by a DataLoad.
    #[default]
    Never,
    /// After the first listing.
    OnCreate,
}

/// When the sources are listed again.
#[derive(KubeSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refresh {
    /// Time between two listings, for example 10m. At least 10s.
    #[x_kube(validation = Rule::new("duration(self) >= duration('10s')").message("interval must be at least 10s"))]
    pub interval: Span,
}

/// Which changes a pod sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum View {
    /// None: the listing at its start.
    #[default]
    Snapshot,
    /// Each new listing.
    Live,
}

/// Access modes of the PVC of a Dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AccessMode {
    /// Read-only on many nodes.
    ReadOnlyMany,
    /// For tools that require it; read-only as well.
    ReadWriteMany,
}

/// Owner, group and mode of files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// User id of all files and directories. Default 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 4_294_967_294_i64))]
    pub uid: i64,

    /// Group id of all files and directories. Default 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 4_294_967_294_i64))]
    pub gid: i64,

    /// Permission bits of files, in octal. Default "0444".
    #[serde(default = "Owner::default_file_mode")]
    #[schemars(regex(pattern = "^0?[0-7]{3}$"))]
    pub file_mode: String,

    /// Permission bits of directories, in octal. Default "0555".
    #[serde(default = "Owner::default_dir_mode")]
    #[schemars(regex(pattern = "^0?[0-7]{3}$"))]
    pub dir_mode: String,
}

impl Owner {
    fn default_file_mode() -> String {
        "0444".to_owned()
    }

    fn default_dir_mode() -> String {
        "0555".to_owned()
    }
}

/// Other namespaces that may use a Dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SharedWith {
    /// Names of namespaces. Default: none.
    #[serde(default)]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "set"))]
    pub namespaces: Vec<String>,
}

/// Observed state of a Dataset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatasetStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Pending, Bound, Degraded or Failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<DatasetPhase>,

    /// The pool that caches the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,

    /// Number of the newest catalog: each listing that finds a change creates one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalog_generation: Option<i64>,

    /// Files in the newest catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<i64>,

    /// Their size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_size: Option<ByteQuantity>,

    /// Bytes of the newest catalog cached on the worker that has most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached: Option<ByteQuantity>,

    /// Capacity for the Dataset on one worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_capacity: Option<ByteQuantity>,

    /// cached / totalSize, for example 42.0%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_percentage: Option<String>,

    /// Bytes read from the cache / bytes read, since the start of the workers, for example 98.5%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hit_ratio: Option<String>,

    /// Workers that serve the Dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<i32>,

    /// Conditions: Ready, SourceReachable, CatalogReady, Warm, DeletionBlocked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Phases of a Dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DatasetPhase {
    /// The sources are being listed, or the volume is being bound.
    Pending,
    /// Pods can use it.
    Bound,
    /// Pods can use it, but there is a problem: see the conditions.
    Degraded,
    /// Pods cannot use it because of a problem with the spec, a source or a tier: see the conditions.
    Failed,
}
