//! `millpond upgrade`: another version of the program takes over a mount.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use super::terminal::print_line;
use crate::mount::run_directory::RunDirectory;
use crate::mount::supervisor_command::{self, SupervisorCommand};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Mount directory, or a path below it.
    directory: PathBuf,
    /// Program that takes over [default: this one].
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (run_dir, directory, _) = RunDirectory::containing(&arguments.directory)?;
    let binary = match &arguments.binary {
        Some(binary) => binary
            .canonicalize()
            .with_context(|| format!("failed to find --binary {}", binary.display()))?,
        None => std::env::current_exe().context("failed to find this program")?,
    };
    supervisor_command::send(
        &run_dir,
        &SupervisorCommand::Upgrade {
            binary: binary.clone(),
        },
    )?;
    print_line(format_args!(
        "{} is served by {}",
        directory.display(),
        binary.display()
    ));
    Ok(ExitCode::SUCCESS)
}
