//! `millpond unmount`: takes a mount away and waits until nothing of it is left.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::terminal::say;
use crate::mount::clean;
use crate::mount::order::{self, Order, Watched};
use crate::mount::place::Place;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where the source is mounted.
    directory: PathBuf,
    /// Even while it is in use: open files that are not cached whole fail then.
    #[arg(long)]
    force: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (place, directory, _) = Place::containing(&arguments.directory)?;
    if let Some(claim) = place.claim()? {
        // Its processes are gone; what they left is not.
        clean::leftovers(&place, &directory)?;
        clean::remove(&place)?;
        drop(claim);
        say(format_args!("cleared what was left of {}", directory.display()));
        return Ok(ExitCode::SUCCESS);
    }
    let supervisor = Watched::supervisor(&place);
    order::give(
        &place,
        &Order::Unmount {
            force: arguments.force,
        },
    )?;
    supervisor.wait()?;
    Ok(ExitCode::SUCCESS)
}
