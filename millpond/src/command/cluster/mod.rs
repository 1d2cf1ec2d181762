//! `kubectl millpond`: the commands for the Datasets of a cluster.
//!
//! kubectl runs a program named `kubectl-millpond` as its plugin; a link of that name to this program is enough.

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

/// Show, check and prefetch the Datasets of a cluster.
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
    /// Show Datasets, bytes cached on each node, hit ratios and loads.
    Status(status::Arguments),
    /// Prefetch a Dataset, or a part of it, by a DataLoad.
    Warmup(warmup::Arguments),
    /// Check Millpond in the cluster and print causes and fixes; fails if a problem is found.
    Doctor(doctor::Arguments),
}

/// Returns whether the program was called as kubectl's plugin.
pub(super) fn is_called() -> bool {
    let name = std::env::args_os().next();
    name.is_some_and(|name| Path::new(&name).file_name().is_some_and(|name| name == NAME))
}

/// Runs the command of the command line.
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
