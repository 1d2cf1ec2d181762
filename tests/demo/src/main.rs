//! `millpond-demo`: Millpond on this machine (`local`, `make demo-local`) and in a real Kubernetes on this machine
//! (`cluster`, `make demo`).

#![forbid(unsafe_code)]

mod cluster;
mod interrupt;
mod local;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use harness::report::complain;

use crate::interrupt::Interrupt;

/// Shows Millpond at work, with every byte checked, and removes everything again.
#[derive(Debug, Parser)]
#[command(name = "millpond-demo", version)]
struct Arguments {
    #[command(subcommand)]
    place: Place,
}

#[derive(Debug, Subcommand)]
enum Place {
    /// A bucket as a local directory, on a real S3 server: `make demo-local`.
    Local(local::Arguments),
    /// A Dataset in a real Kubernetes on this machine, and a pod that reads it: `make demo`.
    Cluster(cluster::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let run = || -> Result<()> {
        let interrupt = Interrupt::on_signals()?;
        match &arguments.place {
            Place::Local(arguments) => local::run(arguments, &interrupt),
            Place::Cluster(arguments) => cluster::run(arguments, &interrupt),
        }
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("\nerror: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
