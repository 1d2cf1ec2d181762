//! `kubectl millpond`: the same program beside kubectl, for the Datasets of a cluster.
//!
//! kubectl runs a program of the name `kubectl-millpond` as its plugin; a link of that name to this one is enough.

mod check_result;
mod connection;
mod doctor;
mod scrape;
mod status;
mod warmup;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use self::connection::{Cluster, ClusterArguments};
use crate::mount::client::block_on;

const NAME: &str = "kubectl-millpond";

/// Datasets in a cluster: where they are cached, what is wrong with them, and fetching them ahead.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl millpond",
    bin_name = "kubectl millpond",
    version,
    max_term_width = 110
)]
struct Cli {
    #[command(flatten)]
    cluster: ClusterArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show Datasets, what each node has cached of them, hit ratios and loads.
    Status(status::Arguments),
    /// Fetch a Dataset, or a part of it, before pods read it.
    Warmup(warmup::Arguments),
    /// Tell what is wrong, why, and what helps; fails where something is.
    Doctor(doctor::Arguments),
}

/// Whether the program was called as kubectl's plugin.
pub(super) fn is_called() -> bool {
    let name = std::env::args_os().next();
    name.is_some_and(|name| Path::new(&name).file_name().is_some_and(|name| name == NAME))
}

/// Runs what the command line says.
pub(super) fn run() -> Result<ExitCode> {
    let Cli { cluster, command } = Cli::parse();
    block_on(async {
        let cluster = Cluster::connect(cluster).await?;
        match command {
            Command::Status(arguments) => status::run(&cluster, &arguments).await,
            Command::Warmup(arguments) => warmup::run(&cluster, arguments).await,
            Command::Doctor(arguments) => Box::pin(doctor::run(&cluster, &arguments)).await,
        }
    })
}
