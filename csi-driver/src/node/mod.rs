//! State of this node: the Datasets in use here, and their volumes.
//!
//! - [`plan`]: the controller's plan, stored on the disk. [`tiers`]: the directories that workers need.
//! - [`datasets`]: per Dataset in use a FUSE mount, its views and a connection to its worker ([`workers`]).
//! - [`volumes`]: the kubelet's requests ([`request`]), published by views ([`view_setup`]); [`record`]: each volume on
//!   the disk, so that a restarted driver, also after a reboot, mounts the same; [`target`]: where pods have their volumes.
//! - [`reports`]: the reports to the controller. [`layout`]: the paths of all of it.
//!
//! Invariants: a volume's record is written before its view is mounted, and removed after its unmount. A driver that exits
//! unmounts nothing. Nothing is mounted at a path that leaves the kubelet's directory, or that leads through a link.

mod dataset;
mod datasets;
mod error;
mod layout;
mod plan;
mod record;
mod reports;
mod request;
mod target;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
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
