//! The Kubernetes API of Millpond.
//!
//! Three kinds in `millpond.io/v1alpha1`: a [`CachePool`] caches data on nodes, a [`Dataset`] names the data, a [`DataLoad`]
//! prefetches it. `kubectl explain` shows the doc comments of their fields. Rules about one object alone are CEL rules here,
//! so that the API server refuses the object with the name of the field; what depends on other objects is a condition
//! ([`condition`]).
//!
//! Invariants: a field is never renamed and never changes its meaning; every optional field documents its default; the names
//! of all objects that the controller creates are in [`names`].

#![expect(
    clippy::duplicated_attributes,
    reason = "the lint takes the columns of a table for one attribute"
)]
#![expect(
    unreachable_pub,
    reason = "kube's derives repeat each type inside of a function, where nothing can be reached"
)]

pub mod condition;
mod dataset;
mod load;
pub mod names;
mod pool;
mod quantity;

pub use dataset::{
    AccessMode, Dataset, DatasetPhase, DatasetSpec, DatasetStatus, Eviction, Mount, Owner, Prefetch, Refresh,
    SecretReference, SharedWith, View,
};
pub use load::{DataLoad, DataLoadSpec, DataLoadStatus, FailedPath, LoadPhase, LoadPolicy};
pub use pool::{CachePool, CachePoolSpec, CachePoolStatus, Medium, PoolPhase, Tier};
pub use quantity::{ByteQuantity, ParseQuantityError, Span};

/// The API group.
pub const GROUP: &str = "millpond.io";

/// Returns the CRDs in the order in which they are installed.
pub fn crds()
-> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition> {
    use kube::CustomResourceExt;
    vec![CachePool::crd(), Dataset::crd(), DataLoad::crd()]
}
