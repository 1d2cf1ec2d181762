//! Processes of one user on one machine that ask each other things over a unix socket.
//!
//! Messages are JSON over `SOCK_SEQPACKET`, at most 64 KiB, each with its protocol's version; descriptors travel
//! beside them. A listener takes nobody in but its own user, which is root where anything can be mounted.

mod message;
mod socket;

pub(crate) use message::{MessageError, receive, send};
pub(crate) use socket::{accept, connect, listen, pair};

pub use socket::ListenError;
