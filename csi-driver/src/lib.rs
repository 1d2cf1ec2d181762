//! The driver of a node: shows Datasets as file systems.

#![deny(unsafe_code)]

pub mod csi;
pub mod fuse;
mod generations;
pub mod keeper;
mod metrics;
pub mod mount;
pub mod mounter;
mod needed;
pub mod node;
mod options;
mod peer;
mod process;
pub mod remote;
mod run;
mod service;
pub mod view;

pub use generations::{Generations, HeldGeneration};
pub use metrics::{ServedFrom, ViewMetrics};
pub use needed::{NeededGenerations, hold_newest};
pub use options::DriverOptions;
pub use process::main;
pub use run::{RunError, run};
