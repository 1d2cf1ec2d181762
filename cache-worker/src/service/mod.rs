//! Service of a worker for drivers.
//!
//! - [`Datasets`]: the served Datasets.
//! - [`worker_service`]: the RPC service, on top of [`millpond_core::Worker`].
//! - [`Drivers`]: the sessions of a Dataset's drivers, their open files and generations, and release requests to them.
//! - [`LocalIncoming`]: connections over the unix socket of the node, from root alone.
//!
//! Drivers of this node connect over the socket, those of nodes without a worker over mutual TLS. Only the former mount
//! files of the cache directory, so only they are requested to release objects; all of them retain generations.

mod catalog_file;
mod datasets;
mod listen;
mod sessions;
mod worker_service;

pub use datasets::{Datasets, ServedDataset};
pub use listen::{LocalIncoming, LocalPeer};
pub use sessions::Drivers;
pub use worker_service::WorkerService;
