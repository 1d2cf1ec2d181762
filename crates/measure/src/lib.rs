//! Measuring on one machine: time, processes' CPU and memory, cold caches, and comparisons that mean something.
//!
//! - [`Comparison`]: runs several works in turns and gives medians and the ratio of what was measured side by side. On a
//!   machine whose speed wanders, a ratio of neighbours is worth more than two medians.
//! - [`Usage`], [`memory`]: CPU and memory of processes, from /proc. [`MemoryPeak`] watches them while they run.
//! - [`reading`]: the read programs, for the mount and for the disk beside it.
//! - [`drop_caches`]: writes back and drops the page cache, dentries and inodes (needs root).
//! - [`statistics`] has the medians.
//!
//! It only reads /proc; nothing here changes what is measured, but for [`drop_caches`], which is asked to.
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

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// /proc did not tell what it should.
    #[error("failed to read what /proc says of process {pid}")]
    Process {
        /// The process.
        pid: i32,
        /// What /proc said.
        #[source]
        source: procfs::ProcError,
    },
    /// All processes could not be listed.
    #[error("failed to list the processes")]
    Processes(#[source] procfs::ProcError),
    /// The caches could not be dropped; it needs root.
    #[error("failed to drop the page cache")]
    Caches(#[source] std::io::Error),
}

/// The result of a measurement.
pub type Result<T, E = Error> = std::result::Result<T, E>;
