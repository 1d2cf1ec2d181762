//! `millpond-controller`: see [`controller::run`].

#![forbid(unsafe_code)]

use clap::Parser;

fn main() -> anyhow::Result<()> {
    controller::run(controller::Options::parse())
}
