//! A Dataset as a file system: the FUSE server, kernel views over it, the mounts they consist of, and the two processes
//! that outlive or protect the server, keeper and mounter.
//!
//! - [`fuse`]: answers the kernel's requests from a catalog and a [`millpond_core::Worker`].
//! - [`view`]: kernel views, EROFS image and cache directories under overlayfs with FUSE as the last layer.
//! - [`mount`]: mounts by file descriptors. [`mounter`]: creates those that could wait for the FUSE server itself.
//! - [`keeper`]: holds the descriptors of mounts while their server restarts.
//! - [`ServedDataset`]: all of it together, for one Dataset.

#![deny(unsafe_code)]

pub mod fuse;
mod generations;
pub mod keeper;
mod metrics;
pub mod mount;
pub mod mounter;
mod needed_generations;
mod peer;
mod served;
pub mod view;

pub use generations::{GenerationPin, Generations};
pub use metrics::ViewMetrics;
pub use needed_generations::{NeededGenerations, pin_newest};
pub use served::{DatasetViews, Mountpoint, ServeOptions, ServedDataset};
