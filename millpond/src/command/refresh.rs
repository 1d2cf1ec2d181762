//! `millpond refresh`: lists the source again now.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::terminal::{bytes, print_line};
use crate::mount::client::{Client, block_on};
use crate::mount::run_directory::RunDirectory;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Mount directory, or a path below it.
    directory: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (run_dir, _, _) = RunDirectory::containing(&arguments.directory)?;
    let refreshed = block_on(async { Client::new(run_dir).refresh().await })?;
    let news = if refreshed.changed { "new" } else { "unchanged" };
    print_line(format_args!(
        "generation {} ({news}): {} files, {}",
        refreshed.generation,
        refreshed.files,
        bytes(refreshed.bytes)
    ));
    Ok(ExitCode::SUCCESS)
}
