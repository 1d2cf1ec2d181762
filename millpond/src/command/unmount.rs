//! `millpond unmount`: unmounts, and waits until the mount's processes have exited and its run directory is removed.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::terminal::print_line;
use crate::mount::cleanup::{self, UnmountMode};
use crate::mount::client::block_on;
use crate::mount::run_directory::RunDirectory;
use crate::mount::supervisor_command::{self, ProcessWatch, SupervisorCommand};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Mount directory.
    directory: PathBuf,
    /// Unmount even while it is in use; reads of open files that are not completely cached fail then.
    #[arg(long)]
    force: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (run_dir, directory, _) = RunDirectory::containing(&arguments.directory)?;
    let mode = if arguments.force {
        UnmountMode::Detach
    } else {
        UnmountMode::IfUnused
    };
    if let Some(claim) = run_dir.claim()? {
        // The supervisor was killed, and maybe the server: this process cleans up after them.
        block_on(cleanup::unmount_view(&run_dir, &directory, mode))?;
        cleanup::leftovers(&run_dir, &directory)?;
        cleanup::remove(&run_dir)?;
        drop(claim);
        print_line(format_args!(
            "{} is unmounted; its supervisor had been killed",
            directory.display()
        ));
    } else {
        let supervisor = ProcessWatch::supervisor(&run_dir);
        supervisor_command::send(
            &run_dir,
            &SupervisorCommand::Unmount {
                force: arguments.force,
            },
        )?;
        supervisor.wait()?;
    }
    cleanup::sweep();
    Ok(ExitCode::SUCCESS)
}
