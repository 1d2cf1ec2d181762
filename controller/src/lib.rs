//! The controller: turns specs into the plan of the nodes, and reports of the nodes into statuses.
//!
//! - [`pool`], [`dataset`], [`load`]: a reconciler for each kind, in five steps: dereference, validate, build, apply, status.
//! - [`plan`]: the [`plan::PlanIndex`], what every node process has to do, and the service that sends it.
//! - [`node_reports`]: the last reports of the node processes, in memory.
//! - [`ca`]: the authority of the data plane, and the certificates that it issues.
//! - [`lease`]: leader election. Only the leader reconciles and serves plans.
//!
//! Invariants: no read depends on this process. A status follows from the API's objects and the reports alone, so that a
//! controller that has just started computes the same. Bytes on nodes are deleted only for a Dataset that the API server
//! does not list, or that is being deleted while no pod uses it. Objects of other owners are never changed.

mod ca;
mod cluster;
mod dataset;
mod error;
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
mod status;
mod ttl_cache;

pub use options::Options;
pub use run::run;
