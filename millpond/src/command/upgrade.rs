//! `millpond upgrade`: another version of the program takes a mount over.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use super::terminal::say;
use crate::mount::run_directory::Place;
use crate::mount::supervisor_command::{self, SupervisorCommand};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where the source is mounted.
    directory: PathBuf,
    /// The program that takes over [default: this one].
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (place, directory, _) = Place::containing(&arguments.directory)?;
    let binary = match &arguments.binary {
        Some(binary) => binary
            .canonicalize()
            .with_context(|| format!("failed to find --binary {}", binary.display()))?,
        None => std::env::current_exe().context("failed to find this program")?,
    };
    supervisor_command::give(
        &place,
        &SupervisorCommand::Upgrade {
            binary: binary.clone(),
        },
    )?;
    say(format_args!(
        "{} is served by {}",
        directory.display(),
        binary.display()
    ));
    Ok(ExitCode::SUCCESS)
}
