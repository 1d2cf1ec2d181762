//! The driver of a node: shows Datasets as file systems.

#![deny(unsafe_code)]

pub mod fuse;
mod generations;
pub mod keeper;
mod metrics;
pub mod mount;
pub mod remote;
pub mod view;

pub use generations::{Generations, HeldGeneration};
pub use metrics::{ServedFrom, ViewMetrics};
