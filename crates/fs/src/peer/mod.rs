//! Requests between processes of one user on one machine, over a unix socket.
//!
//! Messages are JSON over `SOCK_SEQPACKET`, at most 64 KiB, each with its protocol's version; descriptors are sent
//! with them. A listener accepts only its own user, which is root where anything can be mounted.

mod message;
mod socket;

pub(crate) use message::{MessageError, receive, send};
pub(crate) use socket::{accept, connect, listen, pair};

pub use socket::ListenError;
