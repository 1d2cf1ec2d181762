//! `millpond-worker`: see [`cache_worker::process`].

#![forbid(unsafe_code)]

use clap::Parser;

#[global_allocator]
static ALLOCATOR: runtime::Allocator = runtime::Allocator;

fn main() -> anyhow::Result<()> {
    cache_worker::process::run(cache_worker::process::Options::parse())
}
