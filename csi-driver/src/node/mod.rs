//! What is on this node: which Datasets are shown here, and in which volumes.
//!
//! - [`plan`]: what the controller wants, kept on the disk. [`tiers`]: the directories that workers need.
//! - [`datasets`]: per Dataset in use a FUSE mount, its views and a line to its worker ([`workers`]).
//! - [`volumes`]: what the kubelet asks for ([`request`]), shown by its views ([`view_setup`]); [`record`]: each volume on the disk, so that a driver that starts again, also after
//!   the node did, shows the same; [`target`]: where pods have their volumes.
//! - [`reports`]: what the controller is told. [`layout`]: where all of it lies.
//!
//! Invariants: a volume is written down before it is shown, and forgotten after it is gone. A driver that ends takes
//! nothing away. Nothing is mounted at a path that leaves the kubelet's directory, or that leads through a link.

mod dataset;
mod datasets;
mod error;
mod layout;
mod plan;
mod record;
mod reports;
mod request;
mod target;
#[cfg(test)]
mod tests;
mod tiers;
mod view_setup;
mod volumes;
mod workers;

pub use datasets::{Datasets, DatasetsOptions};
pub use error::VolumeError;
pub use layout::Layout;
pub use plan::{Plan, PlanStore, PlanSync};
pub use record::{AccessMode, PodRef, VolumeKey, VolumeRequest};
pub use reports::Reports;
pub use request::Publish;
pub use tiers::{Tiers, TiersOptions};
pub use volumes::{VolumeStats, Volumes};
pub use workers::{DatasetOnNode, MemberAddress, NodeWorker, PoolOnNode, Workers};
