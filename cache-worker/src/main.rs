//! `millpond-worker`: see [`cache_worker::run`].

#![forbid(unsafe_code)]

use clap::Parser;

#[global_allocator]
static ALLOCATOR: millpond_process::Allocator = millpond_process::Allocator;

fn main() -> anyhow::Result<()> {
    cache_worker::run(cache_worker::Options::parse())
}
