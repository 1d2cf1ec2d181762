//! The mounter: makes the calls that could have a FUSE server wait for itself.
//!
//! An overlay is made by asking each of its layers, and one is in the FUSE mount of the very process that wants the
//! overlay. Were that process to make the call, and be killed after one of its threads had read the kernel's question
//! and before it was answered, it could not die: a call that waits for such an answer cannot be interrupted. Its lock
//! and its line to the keeper would stay open, and no successor could ever answer in its place.
//!
//! So another process makes the calls, one that has neither a FUSE device nor the lock nor a line to the keeper: a
//! container beside the driver's, and on one machine threads of the supervisor ([`start`]). It is asked by a
//! [`Mounter`], which knows nothing but the path of its socket.
//!
//! - Each request has a connection and a thread of its own, so one that waits is in nobody's way. It does one thing
//!   and answers with a result, or with the error that the call would have had here.
//! - What is mounted comes back as a descriptor of a mount that is attached nowhere. Attaching it is the asker's part:
//!   it asks no file system, and works from one mount namespace to another.
//! - The server dies: the thread waits until the successor answers what the kernel sends again, finds nobody to tell
//!   it to, and the mount is gone with its descriptor. The mounter dies: the server answers, and the call ends.
//! - An overlay reads its layers with the rights of the process that made it, so the mounter has those of the driver.
//! - Nothing is kept between requests. One that the mounter's end cuts off is an error, and may be made again.

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
