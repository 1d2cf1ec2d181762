//! What the processes of a cluster send each other: the messages and services of `proto/` as Rust, and the conversions
//! between them and the plain values of `millpond_core`.
//!
//! - [`plan`]: controller with workers and drivers. [`worker`]: driver with worker. [`convert`]: from and to `millpond_core`.

pub mod convert;
pub mod plan;
pub mod worker;
