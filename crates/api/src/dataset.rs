//! What data: a named, read-mostly tree of files whose truth lies in one or more sources.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::{ByteQuantity, Span};

/// What a Dataset is to be.
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
    doc = "A Dataset is a tree of files in object storage that pods mount by the PVC of the Dataset's name, and that a CachePool keeps near them.",
    validation = Rule::new("self.metadata.name.size() <= 63").message("the name of a Dataset may have 63 characters: its PVC and volume are named after it"),
    selectable = ".spec.pool",
    printcolumn(name = "UFS Total Size", type_ = "string", json_path = ".status.totalSize", description = "Size of all files at the sources"),
    printcolumn(name = "Cached", type_ = "string", json_path = ".status.cached", description = "Of these, what the pool holds"),
    printcolumn(name = "Cache Capacity", type_ = "string", json_path = ".status.cacheCapacity", description = "What the pool may hold of it"),
    printcolumn(name = "Cached Percentage", type_ = "string", json_path = ".status.cachedPercentage"),
    printcolumn(name = "Hit Ratio", type_ = "string", json_path = ".status.hitRatio", description = "Bytes read from the cache, of all bytes read"),
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
    validation = Rule::new("!has(oldSelf.pool) || !has(self.pool) || self.pool == oldSelf.pool").message("pool cannot be changed: make another Dataset in the other pool")
)]
pub struct DatasetSpec {
    /// Name of the CachePool that keeps the data. Left out: the pool with the annotation
    /// millpond.io/is-default-pool: "true". Cannot be changed once it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub pool: Option<String>,

    /// Where the files come from: each source is shown at its path. May be changed: pods that start afterwards see
    /// the change, and running ones where view is Live.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    #[x_kube(
        validation = Rule::new("self.size() == 1 || self.all(m, has(m.name) || has(m.path))").message("with several mounts each needs a name or a path"),
        validation = Rule::new("self.all(m, self.exists_one(o, (has(o.path) ? o.path : has(o.name) ? '/' + o.name : '/') == (has(m.path) ? m.path : has(m.name) ? '/' + m.name : '/')))").message("two mounts cannot have the same path")
    )]
    pub mounts: Vec<Mount>,

    /// How many workers of the pool keep each piece of data. Default 1. May be changed.
    #[serde(default = "DatasetSpec::default_replicas")]
    #[schemars(range(min = 1, max = 16))]
    pub replicas: i32,

    /// How much of each worker's capacity this Dataset may use, for example 2Ti. Left out: what the pool has. May be
    /// changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<ByteQuantity>,

    /// What makes room when the quota is full. Never (the default): what is in stays, more is read through, which is
    /// best for training in epochs. LRU: what was not used for longest goes. TinyLFU: what is used least often goes.
    /// May be changed.
    #[serde(default)]
    pub eviction: Eviction,

    /// Never (the default), or OnCreate: everything is fetched ahead as soon as the Dataset is there, without a
    /// DataLoad. May be changed.
    #[serde(default)]
    pub prefetch: Prefetch,

    /// When the sources are listed again. Left out: only on request (annotation millpond.io/refresh with a new value)
    /// and when a file turns out to have changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Refresh>,

    /// Snapshot (the default): a pod sees the files as they were listed when it started, for its whole life. Live: it
    /// sees each new listing. May be changed; holds for pods that start afterwards.
    #[serde(default)]
    pub view: View,

    /// Access modes of the PVC; data is read-only whatever is asked. Default ReadOnlyMany. Cannot be changed.
    #[serde(default = "DatasetSpec::default_access_modes")]
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("accessModes cannot be changed: a PVC's are fixed"))]
    pub access_modes: Vec<AccessMode>,

    /// Whom the files belong to and what their permission bits are. Left out: root's, readable by all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,

    /// Which namespaces besides its own may use the Dataset, as dataset://namespace/name. Left out: none.
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
    /// The source: s3://bucket/prefix, gs://, az:// or abfs://, http(s)://, file:///directory (of the node).
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new("self.matches('^(s3|gs|az|abfs|abfss|http|https|file)://.+')").message("mountPoint must begin with s3://, gs://, az://, abfs://, http://, https:// or file:// and name a bucket, a server or a directory"))]
    pub mount_point: String,

    /// A name for the source, for its path and in messages. Left out: no name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = "^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
    )]
    pub name: Option<String>,

    /// Where its files are shown in the mount. Left out: "/" for a source without a name, else "/<name>".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: Option<String>,

    /// Options of the source by object_store's names, for example region, endpoint. Not for credentials: those go
    /// into a Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64), inner(length(max = 2048)))]
    #[x_kube(validation = Rule::new("!self.exists(k, k.lowerAscii().contains('secret') || k.lowerAscii().contains('password') || k.lowerAscii().contains('token'))").message("credentials do not belong into options, where everybody can read them: put them into a Secret and name it in secretRef"))]
    pub options: BTreeMap<String, String>,

    /// A Secret in the Dataset's namespace whose keys are object_store's names (aws_access_key_id,
    /// aws_secret_access_key, ...); also ca.crt (a private CA, PEM) and proxy_url. It is read again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretReference>,

    /// A ServiceAccount in the Dataset's namespace whose web identity token the source is asked with, instead of a
    /// Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,

    /// Only files that match one of these globs, relative to the source, for example **/*.jpg. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub include: Vec<String>,

    /// No files that match one of these globs. Empty: none are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub exclude: Vec<String>,
}

impl Mount {
    /// Where the source is shown.
    pub fn shown_at(&self) -> String {
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
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What makes room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Eviction {
    /// Nothing.
    #[default]
    Never,
    /// The least recently used goes.
    #[serde(rename = "LRU")]
    Lru,
    /// The least often used goes.
    #[serde(rename = "TinyLFU")]
    TinyLfu,
}

/// When everything is fetched ahead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Prefetch {
    /// On request.
    #[default]
    Never,
    /// At once.
    OnCreate,
}

/// When the sources are listed again.
#[derive(KubeSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refresh {
    /// The time between two listings, for example 10m. At least 10s.
    #[x_kube(validation = Rule::new("duration(self) >= duration('10s')").message("interval must be at least 10s"))]
    pub interval: Span,
}

/// What a pod sees of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum View {
    /// None.
    #[default]
    Snapshot,
    /// Each new listing.
    Live,
}

/// Access modes that a PVC of a Dataset may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AccessMode {
    /// Many nodes, reading.
    ReadOnlyMany,
    /// For tools that insist on it; reading all the same.
    ReadWriteMany,
}

/// Whom files belong to.
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

/// Who else may use a Dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SharedWith {
    /// Names of namespaces.
    #[serde(default)]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "set"))]
    pub namespaces: Vec<String>,
}

/// What a Dataset is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatasetStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Pending, Bound, Degraded or Failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<DatasetPhase>,

    /// The pool that keeps the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,

    /// Number of the newest catalog: each listing that found a change makes a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalog_generation: Option<i64>,

    /// Files in the newest catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<i64>,

    /// Their size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_size: Option<ByteQuantity>,

    /// Of these, what the pool holds at least once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached: Option<ByteQuantity>,

    /// What the pool may hold of the Dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_capacity: Option<ByteQuantity>,

    /// cached / totalSize, for example 42.0%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_percentage: Option<String>,

    /// Bytes read from the cache of all bytes read since the workers started, for example 98.5%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hit_ratio: Option<String>,

    /// Workers of the pool that serve the Dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<i32>,

    /// What is true of the Dataset: Ready, SourceReachable, CatalogReady, Warm.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A Dataset in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DatasetPhase {
    /// There is no catalog yet.
    Pending,
    /// Pods can use it.
    Bound,
    /// Pods can use it, but something is wrong: see the conditions.
    Degraded,
    /// Its spec cannot be carried out until somebody changes something: see the conditions.
    Failed,
}
