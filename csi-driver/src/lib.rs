//! The driver of a node: publishes Datasets into pods as volumes.

#![deny(unsafe_code)]

pub mod csi;
pub mod node;
mod options;
mod process;
pub mod remote;
mod run;
mod service;

pub use options::DriverOptions;
pub use process::main;
pub use run::{RunError, run};
