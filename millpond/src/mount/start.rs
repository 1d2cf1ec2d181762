//! Start of a mount: claims its run directory, cleans up leftovers, starts the supervisor, waits until it is usable.

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
use super::run_directory::{RunDirectory, RunDirectoryLock};
use super::spec::Spec;

/// Path of this program, valid also after its file was replaced.
pub(crate) const SELF: &str = "/proc/self/exe";

/// Starts a mount in the background and waits until it is usable.
///
/// # Errors
/// The reason why the mount failed. Everything is removed then.
pub(crate) fn detached(spec: &Spec, other: impl FnMut(&Report)) -> Result<Ready> {
    let (run_dir, claim) = prepare(spec)?;
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(run_dir.log())
        .with_context(|| format!("failed to create {}", run_dir.log().display()))?;
    let mut supervisor = supervise(&run_dir, claim)
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("failed to start the mount's supervisor")?;
    let pipe = supervisor.stdout.take().context("the supervisor has no output")?;
    readiness::wait(pipe, other).inspect_err(|_reason| {
        // The supervisor reports its failure before its cleanup, which the caller must find done.
        let _ended = supervisor.wait();
    })
}

/// Becomes the supervisor of a mount.
///
/// Returns only if that fails.
pub(crate) fn in_foreground(spec: &Spec) -> Error {
    match prepare(spec) {
        Ok((run_dir, claim)) => supervise(&run_dir, claim).arg("--foreground").exec().into(),
        Err(error) => error,
    }
}

fn supervise(run_dir: &RunDirectory, claim: RunDirectoryLock) -> Command {
    let mut command = Command::new(SELF);
    // The lock lives as long as the descriptor, and the supervisor as long as its standard input.
    command
        .arg0("millpond")
        .arg("supervise")
        .arg(run_dir.path())
        .stdin(Stdio::from(claim.into_file()))
        .current_dir("/");
    command
}

fn prepare(spec: &Spec) -> Result<(RunDirectory, RunDirectoryLock)> {
    let directory = &spec.directory;
    let run_dir = RunDirectory::of(directory)?;
    let Some(claim) = run_dir.claim()? else {
        bail!(
            "{} is already mounted by Millpond: unmount it first with `millpond unmount {}`, or choose another \
             directory",
            directory.display(),
            directory.display()
        );
    };
    cleanup::leftovers(&run_dir, directory)?;
    cleanup::sweep();
    let result = refuse_foreign(directory).and_then(|()| spec.write(&run_dir.spec()));
    if let Err(error) = result {
        cleanup::remove(&run_dir)?;
        return Err(error);
    }
    Ok((run_dir, claim))
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
    // Checked last, since `stat` of a dead mount's root fails.
    if !directory.is_dir() {
        bail!("{} is not a directory: choose another one", directory.display());
    }
    Ok(())
}

/// Truncates a log that has grown too large: it lies in memory.
pub(crate) fn bound_log(run_dir: &RunDirectory) {
    const MAX_LOG_BYTES: u64 = 16 << 20;
    let Ok(mut log) = OpenOptions::new().append(true).open(run_dir.log()) else {
        return;
    };
    if log.metadata().is_ok_and(|log| log.len() > MAX_LOG_BYTES) && log.set_len(0).is_ok() {
        let _full = writeln!(log, "the log had grown too large and was truncated");
    }
}

/// Sets the process's name, which would be `exe` after a start by [`SELF`].
pub(crate) fn name_process() {
    if let Err(error) = rustix::thread::set_name(c"millpond") {
        tracing::debug!(%error, "failed to name the process");
    }
}
