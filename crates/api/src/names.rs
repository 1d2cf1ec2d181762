//! Names, labels and annotations of everything that is made for the API's objects.

use kube::ResourceExt;

use crate::{CachePool, Dataset};

pub use millpond_core::CSI_DRIVER;

/// Who applies objects, and reports events.
pub const MANAGER: &str = "millpond-controller";

/// Marks everything that the controller made.
pub const LABEL_MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", MANAGER);

/// The pool that an object belongs to.
pub const LABEL_POOL: &str = "millpond.io/pool";

/// The name of the Dataset that an object belongs to.
pub const LABEL_DATASET: &str = "millpond.io/dataset";

/// The namespace of the Dataset that an object (a cluster-scoped one) belongs to.
pub const LABEL_DATASET_NAMESPACE: &str = "millpond.io/dataset-namespace";

/// On a CachePool: "true" makes it the pool of Datasets that name none.
pub const ANNOTATION_DEFAULT_POOL: &str = "millpond.io/is-default-pool";

/// On a Dataset: a new value makes its sources be listed once more.
pub const ANNOTATION_REFRESH: &str = "millpond.io/refresh";

/// On a pod: the number of the catalog that its views of a Dataset show.
pub const ANNOTATION_GENERATION: &str = "millpond.io/generation";

/// Keeps a Dataset until what owner references cannot remove (its volume, its bytes on nodes) is gone.
pub const FINALIZER: &str = "millpond.io/dataset";

/// The workers' DaemonSet, and their Service, of a pool.
pub fn worker(pool: &CachePool) -> String {
    format!("millpond-worker-{}", pool.name_any())
}

/// The PVC of a Dataset, in its namespace.
pub fn claim(dataset: &Dataset) -> String {
    dataset.name_any()
}

/// The volume behind it. `None` for a Dataset that the API server has not seen.
pub fn volume(dataset: &Dataset) -> Option<String> {
    dataset.uid().map(|uid| format!("millpond-{uid}"))
}
