//! The keeper: holds what a FUSE mount needs to outlive its server.
//!
//! A [`KeeperServer`] runs in a process that does nothing else (the supervisor on one machine), and holds for each mount a
//! copy of its `/dev/fuse` descriptor, the shared memory with its open files, and a note of the server's own. A
//! server is a [`KeeperClient`] of it, over an inherited socket: it registers a mount after mounting it, and the next
//! server takes the mount over.
//!
//! - A descriptor is sent to one server at a time. A server that requests it while another one is connected waits until
//!   that one's socket closes, which happens only when the process has exited: two servers never read from one
//!   connection.
//! - When no server is ready for longer than a timeout, the keeper aborts the connections: reads that wait then fail,
//!   instead of hanging forever, unkillable even by SIGKILL.
//! - In a cluster the keeper is a process of its own ([`listen`]), and one server registers the mounts of all Datasets of
//!   its node. When the keeper restarts, the server reconnects and registers everything again ([`KeeperConnection`]).
//! - Aborting a connection needs no privilege: the keeper's descriptors are the last ones then, and the kernel ends
//!   the connection with them.

mod absence;
mod client;
mod connection;
mod listener;
mod message;
mod server;
#[cfg(test)]
mod tests;

pub use client::{KeeperClient, RecoveredMount};
pub use connection::KeeperConnection;
pub use listener::{KeeperOptions, listen};
pub use message::KeeperError;
pub use server::{KeeperServer, Status};

pub use crate::peer::ListenError;
