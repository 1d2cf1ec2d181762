//! `millpond refresh`: lists the source again now.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::terminal::{bytes, say};
use crate::mount::client::{Client, block_on};
use crate::mount::run_directory::Place;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where the source is mounted.
    directory: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (place, _, _) = Place::containing(&arguments.directory)?;
    let refreshed = block_on(async { Client::new(place).refresh().await })?;
    let news = if refreshed.changed { "new" } else { "unchanged" };
    say(format_args!(
        "generation {} ({news}): {} files, {}",
        refreshed.generation,
        refreshed.files,
        bytes(refreshed.bytes)
    ));
    Ok(ExitCode::SUCCESS)
}
