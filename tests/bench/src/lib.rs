//! The figures of Millpond: measured on this machine with the real binary, real mounts and the tests' own S3 server in a
//! process of its own, and shown beside their goals.
//!
//! - A ratio compares works that take turns in one run: native ext4 in the same round, the same files on the same file
//!   system as the cache, read by the same code ([`millpond_measure::reading`]); or a plain program ([`plain`]) that fetches the
//!   same bytes from the same server. The median over the rounds is what counts; the extremes stand beside it.
//! - Nothing here asserts a time: a goal that is missed is shown as missed. Bytes are checked, outside of the timed
//!   passes; wrong ones end the run with an error.
//! - [`Lab`](lab::Lab) has what figures share: the scratch directory, data sets, servers and a warm cache. All of it is
//!   gone afterwards, also after an interrupt; what a killed run left goes when the next one begins.
//!
//! [`ClusterCommand`] measures Millpond in a real Kubernetes on this machine: from an object to the PVC, from the pod to the first byte, reads
//! in pods, what the API server and Prometheus see.
//!
//! `docs/benchmarks.md` says what each figure means.
#![forbid(unsafe_code)]

mod cluster;
mod command;
mod data;
mod figure;
mod figures;
mod lab;
mod memory;
mod mount;
mod plain;
mod report;
mod row;

pub use cluster::ClusterCommand;
pub use command::Command;
