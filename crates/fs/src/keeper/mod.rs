//! The keeper: holds what a FUSE mount needs to outlive its server.
//!
//! A [`KeeperServer`] runs in a process that does nothing else (the supervisor on one machine), and keeps for each mount a
//! copy of its `/dev/fuse` descriptor, the shared memory with its open files, and a note of the server's own. A
//! server is a [`KeeperClient`] of it, over a socket that it was born with: it gives a mount after mounting it, and when
//! the next server starts, that one takes what is there.
//!
//! - A descriptor is given to one server at a time. Who asks while another server is still connected waits until
//!   that one's socket closes, which it does only when the process is gone: two servers never read from one
//!   connection.
//! - When no server is ready for longer than a limit, the holder aborts the connections: reads that wait fail
//!   then, instead of hanging for ever, deaf even to SIGKILL.
//! - In a cluster the keeper is a process of its own ([`listen`]), and one server gives it the mounts of all Datasets of
//!   its node. Where the keeper starts anew, the server notices at once and gives everything again ([`KeeperConnection`]).
//! - The end of a connection needs no privilege: the keeper's descriptors are the last ones then, and the kernel ends
//!   it with them.

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
