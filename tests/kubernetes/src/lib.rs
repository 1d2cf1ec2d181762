//! What the tests on a real cluster need: a cluster, Millpond installed in it as its users do, an S3 server whose
//! credentials are checked, and pods that check every byte they read.
//!
//! - [`World`]: all of it, up before the first case. [`Cluster`]: the cluster, made here or named by `KUBECONFIG`.
//! - [`Kubectl`]: what a person types. [`Namespace`]: where a case puts its objects, gone afterwards.
//! - [`Turn`]: which cases run side by side.
//! - [`S3`]: the source. [`Reader`]: a pod that reads and compares.
//! - [`create_many`], [`delete_many`]: many Datasets at once; [`bind_by_hand`]: what the cluster alone takes for their objects. [`Requests`]: what the API server was asked.
//!
//! Everything goes the way of a user: `helm`, `kubectl`, objects in YAML, pods that read files.

#![expect(
    clippy::print_stderr,
    reason = "what cannot be cleaned up is printed for the person who runs the tests"
)]

mod by_hand;
mod cluster;
mod manifest;
mod many;
mod namespace;
mod plugin;
mod reader;
mod requests;
mod s3;
mod turn;
mod world;

pub use by_hand::bind_by_hand;
pub use cluster::{Cluster, is_foreign};
pub use manifest::{Dataset, Mount, condition_of};
pub use many::{create_many, delete_many};
pub use namespace::Namespace;
pub use plugin::Answer;
pub use reader::Reader;
pub use requests::{Asked, Requests};
pub use s3::{Bucket, S3};
pub use test_cluster::{Kubectl, eventually, settle, workspace};
pub use turn::Turn;
pub use world::{POOL, SYSTEM, World};
