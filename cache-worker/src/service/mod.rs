//! What a worker is to the drivers: its Datasets over a socket.
//!
//! - [`Datasets`]: which Datasets are served now.
//! - [`worker_service`]: the answers to a driver, each from [`millpond_core::Worker`].
//! - [`Drivers`]: who attends a Dataset, what they have open and show, and how they are asked to let go of objects.
//! - [`LocalIncoming`]: connections over the unix socket of the node, from root alone.
//!
//! Drivers of this node come over the socket, those of nodes without a worker over mutual TLS. Only the former hold
//! files of the cache directory, so only they are asked to let go; all of them hold generations.

mod catalog_file;
mod datasets;
mod listen;
mod sessions;
mod worker_service;

pub use datasets::{Datasets, ServedDataset};
pub use listen::{LocalIncoming, LocalPeer};
pub use sessions::Drivers;
pub use worker_service::WorkerService;
