//! A mount on one machine, from start to end.
//!
//! - `millpond mount` ([`start`]) claims a run directory ([`run_directory`]), writes the mount's [`spec`], starts the
//!   supervisor and waits for its [`readiness`].
//! - The supervisor ([`supervisor`]) keeps the FUSE descriptor, restarts the server when it exits, and removes everything
//!   at the end ([`cleanup`]). It handles the commands that must work without a server ([`supervisor_command`]), among
//!   them the [`upgrade`] to another program.
//! - The server ([`server`]) does the work: the worker's Dataset, the FUSE server, the view ([`views`]),
//!   metrics over HTTP ([`service`]) and the [`control`] socket of the other commands ([`client`]). If its supervisor is
//!   killed, it keeps serving as an [`orphan`].

pub(crate) mod absence_timeout;
mod child;
pub(crate) mod cleanup;
pub(crate) mod client;
pub(crate) mod control;
pub(crate) mod memory;
pub(crate) mod mount_watch;
mod orphan;
pub(crate) mod path;
pub(crate) mod readiness;
pub(crate) mod restart;
pub(crate) mod run_directory;
pub(crate) mod server;
pub(crate) mod service;
pub(crate) mod spec;
pub(crate) mod start;
pub(crate) mod supervisor;
pub(crate) mod supervisor_command;
mod upgrade;
pub(crate) mod views;
