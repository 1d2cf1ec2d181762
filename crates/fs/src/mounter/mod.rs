//! The mounter: performs the calls that could make a FUSE server wait for itself.
//!
//! Mounting an overlay sends requests to each of its layers, and one is in the FUSE mount of the very process that needs the
//! overlay. If that process made the call, and was killed after one of its threads had read the kernel's request and before
//! it was answered, it could not exit: a call that waits for such a reply cannot be interrupted. Its lock
//! and its connection to the keeper would stay open, and no successor could ever answer in its place.
//!
//! So another process makes the calls, one that has neither a FUSE device nor the lock nor a connection to the keeper: a
//! container beside the driver's, and on one machine threads of the supervisor ([`start`]). Its client is a
//! [`Mounter`], which has only the path of its socket.
//!
//! - Each request has a connection and a thread of its own, so one that waits blocks no other. The response is the result of
//!   one call, or its error.
//! - A new mount is returned as a descriptor, attached nowhere. The client attaches it: this sends no request to a file
//!   system, and works from one mount namespace to another.
//! - The server dies: the thread waits until the successor answers what the kernel resends, finds its client disconnected,
//!   and the mount ends with its descriptor. The mounter dies: the server answers, and the call ends.
//! - An overlay reads its layers with the privileges of the process that mounted it, so the mounter has those of the driver.
//! - No state is stored between requests. One that the mounter's exit interrupts fails, and may be retried.

mod client;
mod listener;
mod message;
mod server;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use client::Mounter;
pub use listener::{MounterOptions, listen};
pub use server::start;

pub use crate::peer::ListenError;
