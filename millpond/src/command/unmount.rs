//! `millpond unmount`: takes a mount away and waits until nothing of it is left.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::terminal::say;
use crate::mount::cleanup::{self, UnmountMode};
use crate::mount::client::block_on;
use crate::mount::run_directory::Place;
use crate::mount::supervisor_command::{self, ProcessWatch, SupervisorCommand};

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
    let force = if arguments.force {
        UnmountMode::Yes
    } else {
        UnmountMode::No
    };
    if let Some(claim) = place.claim()? {
        // Its supervisor was killed, and maybe its server; what they left is here.
        block_on(cleanup::hide(&place, &directory, force))?;
        cleanup::leftovers(&place, &directory)?;
        cleanup::remove(&place)?;
        drop(claim);
        say(format_args!(
            "{} is unmounted; its supervisor had been killed",
            directory.display()
        ));
    } else {
        let supervisor = ProcessWatch::supervisor(&place);
        supervisor_command::give(
            &place,
            &SupervisorCommand::Unmount {
                force: arguments.force,
            },
        )?;
        supervisor.wait()?;
    }
    cleanup::sweep();
    Ok(ExitCode::SUCCESS)
}
