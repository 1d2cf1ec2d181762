//! What a person can type, and what each of it does.

mod bench;
mod cluster;
mod doctor;
mod mount;
mod progress;
mod refresh;
mod stats;
mod terminal;
mod unmount;
mod upgrade;
mod value;
mod warmup;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::mount::{server, supervisor};

/// A dataset in a bucket as a local directory: cached, native to read, safe to leave mounted.
#[derive(Debug, Parser)]
#[command(name = "millpond", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show a source as a directory; returns when it is usable.
    Mount(Box<mount::Arguments>),
    /// Fetch files before anybody reads them.
    Warmup(warmup::Arguments),
    /// Show hit rates, tiers, catalog and memory of a mount.
    Stats(stats::Arguments),
    /// List the source again now.
    Refresh(refresh::Arguments),
    /// Unmount, and wait until all of the mount is gone.
    #[command(alias = "umount")]
    Unmount(unmount::Arguments),
    /// Move a mount to another version of this program, unnoticed by its readers.
    Upgrade(upgrade::Arguments),
    /// Tell what this machine has, lacks and should have.
    Doctor(doctor::Arguments),
    /// Measure a mount beside the local disk.
    Bench(bench::Arguments),
    /// The process that keeps a mount alive.
    #[command(hide = true)]
    Supervise {
        /// The mount's run directory.
        run_directory: PathBuf,
        /// The starter's terminal is this process's own.
        #[arg(long)]
        foreground: bool,
    },
    /// The process that serves a mount.
    #[command(hide = true)]
    Serve {
        /// The mount's run directory.
        run_directory: PathBuf,
        /// Servers that this mount had before.
        #[arg(long, default_value_t = 0)]
        predecessors: u64,
    },
}

/// Runs what the command line says. By the name of `kubectl-millpond` the program speaks of a cluster.
pub(crate) fn run() -> ExitCode {
    let result = if cluster::is_called() {
        cluster::run()
    } else {
        run_here()
    };
    result.unwrap_or_else(|error| {
        terminal::complain(format_args!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

fn run_here() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Mount(arguments) => mount::run(*arguments),
        Command::Warmup(arguments) => warmup::run(arguments),
        Command::Stats(arguments) => stats::run(&arguments),
        Command::Refresh(arguments) => refresh::run(&arguments),
        Command::Unmount(arguments) => unmount::run(&arguments),
        Command::Upgrade(arguments) => upgrade::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Supervise {
            run_directory,
            foreground,
        } => supervisor::run(&run_directory, foreground),
        Command::Serve {
            run_directory,
            predecessors,
        } => Ok(server::run(&run_directory, predecessors)),
    }
}
