//! What the processes of Millpond say to each other, as traits and plain values: the worker that owns a cache
//! directory, and the driver that shows it as a file system.
//!
//! On one machine both live in one process and call each other through [`Worker`] and [`Views`] directly; in a
//! cluster the same two traits are spoken over a socket. Neither side knows how the other does its part.

pub mod convert;
mod data;
mod object;
pub mod plan;
mod views;
pub mod wire;
mod worker;

pub use data::{Data, Mapping, Served};
pub use object::{Generation, Inode, ObjectRef};
pub use views::{NoViews, ReleaseError, Views};
pub use worker::{CatalogFile, Landed, Local, Opened, ReadError, StreamId, TierDirectories, Worker};
