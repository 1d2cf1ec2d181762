//! Ids, generations and traits that all other crates share: which object in which version ([`ObjectId`],
//! [`Validator`]), which snapshot of a Dataset's metadata ([`Generation`]), the worker that owns a cache directory
//! ([`Worker`]) and the views that mount it ([`Views`]).
//!
//! On one machine worker and views live in one process and call each other through the two traits directly; in a
//! cluster the same traits are implemented over a socket (`millpond_wire`). Neither side depends on the other's
//! implementation.
//! Nothing here depends on a protocol, a file system or Kubernetes.

#[cfg(feature = "test-util")]
pub mod conformance;
mod data;
mod id;
mod object;
mod validator;
mod views;
mod worker;

/// The name of the CSI driver in the cluster, and of its directory below the kubelet's `plugins`.
pub const CSI_DRIVER: &str = "csi.millpond.io";

pub use data::{Data, Mapping, ServedBytes};
pub use id::{ObjectId, ParseObjectIdError};
pub use object::{Generation, Inode, ObjectRef};
pub use validator::{Time, Validator};
pub use views::{NoViews, ReleaseError, Views};
pub use worker::{
    CatalogFile, LandOutcome, LocalCopy, OpenCount, ReadError, StreamId, TierDirectories, Worker,
};
