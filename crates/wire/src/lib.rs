//! The protocols between the processes of a cluster: the messages and services of `proto/` as Rust, and the conversions
//! between messages and the plain values of `millpond_core`.
//!
//! - [`plan`]: controller with workers and drivers. [`worker`]: driver with worker. [`convert`]: from and to `millpond_core`.

pub mod convert;
pub mod plan;
pub mod worker;
