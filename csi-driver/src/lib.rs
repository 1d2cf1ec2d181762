//! The driver of a node: shows Datasets as file systems.

#![deny(unsafe_code)]

mod generations;
mod metrics;
pub mod mount;
pub mod view;

pub use generations::{Generations, HeldGeneration};
pub use metrics::{ServedFrom, ViewMetrics};
