//! Measurements on one machine: time, processes' CPU and memory, cold caches, and robust comparisons.
//!
//! - [`Comparison`]: runs several workloads alternately and returns medians and the ratios of adjacent runs. On a machine
//!   whose speed varies, these are more exact than a ratio of medians.
//! - [`Usage`], [`memory`]: CPU and memory of processes, from /proc. [`MemoryPeak`] watches them while they run.
//! - [`reading`]: read workloads, for a mount and for the local disk.
//! - [`drop_caches`]: writes back and drops the page cache, dentries and inodes (needs root).
//! - [`statistics`]: medians and spreads.
//!
//! It only reads /proc; only [`drop_caches`] changes the state of the machine.
#![deny(unsafe_code)]

mod caches;
mod comparison;
mod io;
mod memory;
mod process;
pub mod reading;
pub mod statistics;

pub use caches::{Caches, drop_caches};
pub use comparison::{Comparison, Measured, Work, evaluate};
pub use memory::{Memory, MemoryPeak, memory};
pub use process::{Usage, descendants, program_below, with_argument};

/// Error of a measurement.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file in /proc could not be parsed.
    #[error("failed to read /proc of process {pid}")]
    Process {
        /// PID of the process.
        pid: i32,
        /// Cause.
        #[source]
        source: procfs::ProcError,
    },
    /// The processes could not be listed.
    #[error("failed to list the processes")]
    Processes(#[source] procfs::ProcError),
    /// The caches could not be dropped, which needs root.
    #[error("failed to drop the page cache")]
    Caches(#[source] std::io::Error),
}

/// Result of a measurement.
pub type Result<T, E = Error> = std::result::Result<T, E>;
