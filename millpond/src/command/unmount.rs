//! `millpond unmount`: takes a mount away and waits until nothing of it is left.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::terminal::say;
use crate::mount::clean::{self, Force};
use crate::mount::client::block_on;
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
    let force = if arguments.force { Force::Yes } else { Force::No };
    if let Some(claim) = place.claim()? {
        // Its supervisor was killed, and maybe its server; what they left is here.
        block_on(clean::hide(&place, &directory, force))?;
        clean::leftovers(&place, &directory)?;
        clean::remove(&place)?;
        drop(claim);
        say(format_args!(
            "{} is unmounted; its supervisor had been killed",
            directory.display()
        ));
    } else {
        let supervisor = Watched::supervisor(&place);
        order::give(
            &place,
            &Order::Unmount {
                force: arguments.force,
            },
        )?;
        supervisor.wait()?;
    }
    clean::sweep();
    Ok(ExitCode::SUCCESS)
}
