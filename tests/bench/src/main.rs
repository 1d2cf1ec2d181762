//! `millpond-figures`: what Millpond reaches on this machine, beside the goals. See the library.

use std::process::ExitCode;

use bench::Command;
use clap::Parser;

fn main() -> anyhow::Result<ExitCode> {
    Command::parse().run()
}
