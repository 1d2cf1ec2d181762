//! The Kubernetes API of Millpond: what users write and read.
//!
//! Three kinds in the group `millpond.io/v1alpha1`: a [`CachePool`] is where data is kept, a [`Dataset`] what data, a
//! [`DataLoad`] an order to fetch it ahead. The doc comments of their fields are what `kubectl explain` shows, and the
//! rules that one object can break by itself are CEL rules here, so that the API server refuses it with the field's
//! name; what depends on other objects is a condition ([`condition`]).
//!
//! Invariants: a field is never renamed or given another meaning; every optional field says what leaving it out means;
//! names of everything that is made for these objects are in [`names`], once.

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

/// The CRDs, in the order in which they are installed.
pub fn crds()
-> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition> {
    use kube::CustomResourceExt;
    vec![CachePool::crd(), Dataset::crd(), DataLoad::crd()]
}
