//! The FUSE server: exposes a Dataset's objects and trees, and serves what the kernel does not have.
//!
//! A mount's root holds `gen-N/` (the tree of a generation), `live/` (the tree of the newest), and the two
//! directories that are layers of kernel views, `objects/` and `last/`; or it is the live tree itself, for users
//! who cannot mount anything on top of it.
//!
//! - [`node`]: node ids, which any process can read. [`tree`]: names, attributes, listings, from [`catalogs`].
//! - [`handler`]: lookups of objects, opens, reads: what needs the worker. [`errno`]: what a reader sees of a failure.
//! - [`opens`]: the mode of each open inode, in a [`table`] that a successor inherits.
//! - [`filesystem`]: the kernel's requests. [`session`]: what is negotiated with the kernel. [`mounting`]: mounts.
//! - [`live_tree`]: new generations. [`FuseServer`]: all of it together, mounted or taken over from a dead server.
//!
//! **Reads.** A complete object is opened by passthrough, and the kernel reads the cache file itself; an incomplete
//! one with direct I/O, each read a request to the worker. Nothing is ever opened through FUSE's page cache: it would
//! store the bytes twice, and cannot be mixed with passthrough.
//!
//! **What survives the server.** Any server interprets node ids and handles alike; open files are in shared
//! memory; the keeper holds that memory and the `/dev/fuse` descriptor. The kernel resends requests that a dead
//! server had read. So answering a request twice must do no harm, and no request may fail only because the server stops.
//!
//! **Limits.** `fuser` refuses the kernel's interrupts (`FUSE_INTERRUPT`), so a reader that is killed while it waits for
//! the source ends when its read does: at the worker's deadline at the latest. A million files may be open concurrently.

mod catalogs;
mod deferred_reply;
mod errno;
mod filesystem;
mod handler;
mod io;
#[cfg(test)]
mod kernel_tests;
mod live_tree;
mod metrics;
mod mounting;
mod node;
mod opens;
mod server;
mod session;
mod table;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
mod tree;

pub use metrics::FuseMetrics;
pub use server::{FuseError, FuseOptions, FuseServer, Layout, Unmount};
