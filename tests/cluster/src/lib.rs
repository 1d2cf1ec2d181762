//! A real Kubernetes on one machine: etcd, API server, controller manager, scheduler, DNS, and nodes with containerd,
//! kubelet and kube-proxy, each node in namespaces of its own, behind a bridge without a way out.
//!
//! - [`Cluster`]: [`Cluster::up`], [`Cluster::open`], [`Cluster::down`]; its [`Node`]s, [`ApiServer`], [`S3`], [`Prometheus`].
//! - [`Kubectl`]: what a person types.
//! - [`Name`], [`NodeName`]: which cluster, which node.
//!
//! The processes of a cluster outlive the program that started them: a cluster is brought up, used and taken down by
//! different programs. The program `millpond-cluster` does all of it from the command line, and is what runs in a node.

mod api;
mod certificates;
mod cgroup;
mod cluster;
mod control_plane;
mod dns;
mod down;
mod http;
mod init;
mod ip;
mod kubectl;
mod link;
mod logs;
mod name;
mod node;
mod node_name;
mod number;
mod process;
mod prometheus;
mod s3;
mod state;
mod targets;
mod tools;
mod up;
mod wait;

pub use cluster::Cluster;
pub use control_plane::ApiServer;
pub use init::{run_first_process, run_outer_process};
pub use kubectl::Kubectl;
pub use name::Name;
pub use node::Node;
pub use node_name::{MAX_NODES, NodeName};
pub use prometheus::{Prometheus, Series};
pub use s3::{S3, S3Access};
pub use targets::follow_targets;
pub use tools::{tool, tools_dir, workspace};
pub use up::UpOptions;
pub use wait::{eventually, settle};
