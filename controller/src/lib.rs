//! The controller: what users declare becomes what nodes do, and what nodes report becomes what users read.
//!
//! - [`pool`], [`dataset`], [`load`]: a reconciler for each kind, in five steps: dereference, validate, build, apply, status.
//! - [`plan`]: the [`plan::PlanIndex`], what every node process is to do, and the service that tells it.
//! - [`node_reports`]: what the node processes report, in memory.
//! - [`ca`]: the authority of the data plane, and the certificates that it issues.
//! - [`lease`]: which replica leads. Only that one reconciles and serves plans.
//!
//! Invariants: nothing on the way of a read needs this process. Status follows from the API's objects and the reports, so
//! that a controller that has just started comes to the same. Bytes on nodes are deleted only for a Dataset that the API
//! server says is gone or is being deleted with nobody using it. Nothing is changed that another owner made.

mod ca;
mod cluster;
mod dataset;
mod events;
mod http;
mod lease;
mod load;
mod metrics;
mod node_reports;
mod options;
mod plan;
mod pool;
mod run;
mod ttl_cache;

pub use options::Options;
pub use run::run;
