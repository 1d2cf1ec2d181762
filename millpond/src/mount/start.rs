//! Starting a mount: claim its place, clear what was left there, start the supervisor, wait until it is usable.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Error, Result, bail};
use millpond_fs::mount::MountTable;

use super::cleanup;
use super::readiness::{self, Ready, Report};
use super::run_directory::{Place, RunDirectoryLock};
use super::spec::Spec;

/// This very program, also after its file was replaced.
pub(crate) const SELF: &str = "/proc/self/exe";

/// Starts a mount behind the caller's back and waits until it is usable.
///
/// # Errors
/// The reason why it is not. Nothing is left then.
pub(crate) fn detached(spec: &Spec, other: impl FnMut(&Report)) -> Result<Ready> {
    let (place, claim) = prepare(spec)?;
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(place.log())
        .with_context(|| format!("failed to make {}", place.log().display()))?;
    let mut supervisor = supervise(&place, claim)
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("failed to start the mount's supervisor")?;
    let pipe = supervisor.stdout.take().context("the supervisor has no output")?;
    readiness::wait(pipe, other).inspect_err(|_reason| {
        // It says why before it has cleared everything, and the caller may look at once.
        let _ended = supervisor.wait();
    })
}

/// Becomes the supervisor of a mount.
///
/// Returns only where that fails.
pub(crate) fn in_foreground(spec: &Spec) -> Error {
    match prepare(spec) {
        Ok((place, claim)) => supervise(&place, claim).arg("--foreground").exec().into(),
        Err(error) => error,
    }
}

fn supervise(place: &Place, claim: RunDirectoryLock) -> Command {
    let mut command = Command::new(SELF);
    // The lock lives as long as the descriptor, and the supervisor as long as its standard input.
    command
        .arg0("millpond")
        .arg("supervise")
        .arg(place.run())
        .stdin(Stdio::from(claim.into_file()))
        .current_dir("/");
    command
}

fn prepare(spec: &Spec) -> Result<(Place, RunDirectoryLock)> {
    let directory = &spec.directory;
    let place = Place::of(directory)?;
    let Some(claim) = place.claim()? else {
        bail!(
            "{} is already mounted by Millpond: unmount it first with `millpond unmount {}`, or choose another \
             directory",
            directory.display(),
            directory.display()
        );
    };
    cleanup::leftovers(&place, directory)?;
    cleanup::sweep();
    let result = refuse_foreign(directory).and_then(|()| spec.write(&place.spec()));
    if let Err(error) = result {
        cleanup::remove(&place)?;
        return Err(error);
    }
    Ok((place, claim))
}

fn refuse_foreign(directory: &Path) -> Result<()> {
    let table = MountTable::read().context("failed to read the table of mounts")?;
    if let Some(found) = table.top_at(directory) {
        bail!(
            "{} is already a mount point, of {}: choose another directory",
            directory.display(),
            found.source.display()
        );
    }
    // Only now, since the root of a dead mount would not answer.
    if !directory.is_dir() {
        bail!("{} is not a directory: choose another one", directory.display());
    }
    Ok(())
}

/// Empties a log that has grown too large. It lies in memory.
pub(crate) fn bound_log(place: &Place) {
    const MAX_LOG_BYTES: u64 = 16 << 20;
    let Ok(mut log) = OpenOptions::new().append(true).open(place.log()) else {
        return;
    };
    if log.metadata().is_ok_and(|log| log.len() > MAX_LOG_BYTES) && log.set_len(0).is_ok() {
        let _full = writeln!(log, "the log had grown too large and was emptied");
    }
}

/// Gives the process its name in lists of processes: started by [`SELF`] it would be called `exe`.
pub(crate) fn name_process() {
    if let Err(error) = rustix::thread::set_name(c"millpond") {
        tracing::debug!(%error, "failed to name the process");
    }
}
