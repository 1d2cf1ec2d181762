//! `millpond`: mounts a bucket as a local directory, cached on the local disk.
//!
//! One binary with three roles on one machine: the commands of the user ([`command`]), and the two processes
//! behind a mount ([`mount`]): the supervisor, which keeps the mount alive, and the server under it, which does the work.

#![forbid(unsafe_code)]

mod command;
mod mount;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: millpond_process::Allocator = millpond_process::Allocator;

fn main() -> ExitCode {
    command::run()
}
