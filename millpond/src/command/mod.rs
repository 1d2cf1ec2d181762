//! The commands of the program.

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

/// Mount a dataset of an object store as a local read-only directory with a cache.
#[derive(Debug, Parser)]
#[command(name = "millpond", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Mount a source at a directory; returns when the mount is usable.
    Mount(Box<mount::Arguments>),
    /// Prefetch files.
    Warmup(warmup::Arguments),
    /// Print hit ratios, tiers, catalog and memory of a mount.
    Stats(stats::Arguments),
    /// List the source again now.
    Refresh(refresh::Arguments),
    /// Unmount, and wait until the mount's processes have exited.
    #[command(alias = "umount")]
    Unmount(unmount::Arguments),
    /// Move a mount to another version of this program while readers keep reading.
    Upgrade(upgrade::Arguments),
    /// Check what this machine supports and lacks, and print fixes.
    Doctor(doctor::Arguments),
    /// Compare reads of a mount with reads of the local disk.
    Bench(bench::Arguments),
    /// Process that supervises the servers of a mount.
    #[command(hide = true)]
    Supervise {
        /// Run directory of the mount.
        run_directory: PathBuf,
        /// Stay attached to the terminal of the mount command.
        #[arg(long)]
        foreground: bool,
    },
    /// Process that serves a mount.
    #[command(hide = true)]
    Serve {
        /// Run directory of the mount.
        run_directory: PathBuf,
        /// Number of servers that this mount had before.
        #[arg(long, default_value_t = 0)]
        predecessors: u64,
    },
}

/// Runs the command of the command line. Called as `kubectl-millpond`, the program works on a cluster.
pub(crate) fn run() -> ExitCode {
    let result = if cluster::is_called() {
        cluster::run()
    } else {
        run_here()
    };
    result.unwrap_or_else(|error| {
        terminal::print_error(format_args!("error: {error:#}"));
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
