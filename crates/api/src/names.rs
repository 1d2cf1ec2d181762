//! Names, labels and annotations of the objects that the controller creates.

use kube::ResourceExt;

use crate::{CachePool, Dataset};

pub use millpond_core::CSI_DRIVER;

/// The field manager of all objects, and the reporter of all Events.
pub const MANAGER: &str = "millpond-controller";

/// The label of every object that Millpond manages.
pub const LABEL_MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", MANAGER);

/// The label with the pool of an object.
pub const LABEL_POOL: &str = "millpond.io/pool";

/// The label with the name of the Dataset of an object.
pub const LABEL_DATASET: &str = "millpond.io/dataset";

/// The label with the namespace of the Dataset of a cluster-scoped object.
pub const LABEL_DATASET_NAMESPACE: &str = "millpond.io/dataset-namespace";

/// The annotation of a CachePool that, with the value "true", makes it the pool of Datasets that name none.
pub const ANNOTATION_DEFAULT_POOL: &str = "millpond.io/is-default-pool";

/// The annotation of a Dataset whose new value requests another listing of its sources.
pub const ANNOTATION_REFRESH: &str = "millpond.io/refresh";

/// The finalizer of a Dataset, for what owner references do not delete: its volume, and its bytes on nodes.
pub const FINALIZER: &str = "millpond.io/dataset";

/// Returns the name of the DaemonSet and of the Service of a pool's workers.
pub fn worker(pool: &CachePool) -> String {
    format!("millpond-worker-{}", pool.name_any())
}

/// Returns the name of the PVC of a Dataset.
pub fn claim(dataset: &Dataset) -> String {
    dataset.name_any()
}

/// Returns the name of the volume of a Dataset; `None` without a uid, which the API server sets.
pub fn volume(dataset: &Dataset) -> Option<String> {
    dataset.uid().map(|uid| format!("millpond-{uid}"))
}
