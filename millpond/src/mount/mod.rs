//! A mount on one machine, from start to end.
//!
//! - `millpond mount` ([`start`]) claims a run directory ([`place`]), writes down what is wanted ([`spec`]), starts the
//!   supervisor and waits for its [`readiness`].
//! - The supervisor ([`supervisor`]) keeps the FUSE descriptor, starts the server again when it dies, and takes
//!   everything away in the end ([`clean`]). Commands that must work without a server come to it ([`order`]), and
//!   another program by an [`upgrade`].
//! - The server ([`server`]) does the work: the worker's Dataset, the FUSE server, the view ([`views`]),
//!   metrics over HTTP ([`service`]) and the [`control`] socket that the other commands
//!   speak to ([`client`]). Should its supervisor be killed, it serves on as an [`orphan`].

pub(crate) mod changes;
mod child;
pub(crate) mod clean;
pub(crate) mod client;
pub(crate) mod control;
pub(crate) mod limit;
pub(crate) mod memory;
pub(crate) mod order;
mod orphan;
pub(crate) mod path;
pub(crate) mod place;
pub(crate) mod readiness;
pub(crate) mod restart;
pub(crate) mod server;
pub(crate) mod service;
pub(crate) mod spec;
pub(crate) mod start;
pub(crate) mod supervisor;
mod upgrade;
pub(crate) mod views;
