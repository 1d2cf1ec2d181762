//! Removal of a mount's kernel mounts and run directory.
//!
//! Nothing here needs the mount's own server, which may have exited.

use std::path::Path;

use anyhow::{Context, Result, bail};
use millpond_fs::mount::{Mount, MountTable, detach, unmount};

use super::orphan;
use super::run_directory::RunDirectory;

/// Attempts to unmount a busy mount: a process that uses it briefly (an indexer, `df`) closes it soon.
const ATTEMPTS: u32 = 10;

/// Returns the kernel mount on `directory` that belongs to the mount of `run_dir`, if any.
pub(crate) fn mounted_view(run_dir: &RunDirectory, directory: &Path) -> Result<Option<Mount>> {
    let table = MountTable::read().context("failed to read the table of mounts")?;
    Ok(table
        .top_at(directory)
        .filter(|found| belongs_to(run_dir, found))
        .cloned())
}

/// Returns whether a kernel mount belongs to the mount of `run_dir`: an overlay `millpond:NAME:GENERATION`, or the FUSE mount itself.
fn belongs_to(run_dir: &RunDirectory, found: &Mount) -> bool {
    let name = run_dir.name();
    found
        .source
        .to_str()
        .and_then(|source| source.strip_prefix(&name))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

/// What unmounting does with a directory that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnmountMode {
    /// Refuses.
    IfUnused,
    /// Detaches it: open files stay usable until they are closed.
    Detach,
}

/// Unmounts the view from `directory`; succeeds if none is mounted.
///
/// # Errors
/// If it is in use and `mode` is [`UnmountMode::IfUnused`].
pub(crate) async fn unmount_view(run_dir: &RunDirectory, directory: &Path, mode: UnmountMode) -> Result<()> {
    for attempt in 1.. {
        if mounted_view(run_dir, directory)?.is_none() {
            return Ok(());
        }
        let Err(error) = try_unmount(directory) else {
            continue;
        };
        if attempt >= ATTEMPTS {
            if mode == UnmountMode::IfUnused {
                bail!(
                    "{} is in use: close the files that are open there, or unmount it anyway with --force ({error})",
                    directory.display()
                );
            }
            return detach_view(directory);
        }
        tokio::time::sleep(std::time::Duration::from_millis(u64::from(attempt) * 10)).await;
    }
    Ok(())
}

fn try_unmount(directory: &Path) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(unmount(directory)?);
    }
    fusermount(&["-u"], directory)
}

/// Detaches the view from the directory tree; processes that use it keep their open files.
fn detach_view(directory: &Path) -> Result<()> {
    let detached = if rustix::process::geteuid().is_root() {
        detach(directory).map_err(Into::into)
    } else {
        fusermount(&["-u", "-z"], directory)
    };
    detached.with_context(|| format!("failed to unmount {}", directory.display()))
}

/// Runs `fusermount3`, which unmounts for users other than root.
fn fusermount(flags: &[&str], directory: &Path) -> Result<()> {
    let output = std::process::Command::new("fusermount3")
        .args(flags)
        .arg("--")
        .arg(directory)
        .stdin(std::process::Stdio::null())
        .output()
        .context("failed to run fusermount3: install it (Debian: fuse3)")?;
    if !output.status.success() {
        let output = String::from_utf8_lossy(&output.stderr);
        bail!("{}", output.trim());
    }
    Ok(())
}

/// Unmounts everything below the run directory and removes it.
///
/// # Errors
/// If something cannot be unmounted; the directory stays then.
pub(crate) fn remove(run_dir: &RunDirectory) -> Result<()> {
    detach_all(run_dir)?;
    match std::fs::remove_dir_all(run_dir.path()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", run_dir.path().display()))
        }
        _ => Ok(()),
    }
}

/// Detaches everything that is mounted below the run directory.
fn detach_all(run_dir: &RunDirectory) -> Result<()> {
    let table = MountTable::read().context("failed to read the table of mounts")?;
    let mut points: Vec<_> = table
        .iter()
        .map(|mount| mount.point.clone())
        .filter(|point| point.starts_with(run_dir.path()))
        .collect();
    // Later ones may lie on earlier ones.
    points.reverse();
    for point in points {
        detach(&point).with_context(|| format!("failed to unmount {}", point.display()))?;
    }
    Ok(())
}

/// Removes the run directories of dead mounts: those without supervisor, server and mount outside of the run directory.
/// A directory that cannot be removed is left for the next sweep.
pub(crate) fn sweep() {
    let swept = || -> Result<()> {
        for run_dir in RunDirectory::all()? {
            // A run directory in use is not claimed: a claim would block a mount that starts.
            if run_dir.is_claimed() || run_dir.server().is_some() || is_mounted_outside(&run_dir)? {
                continue;
            }
            if let Some(_claim) = run_dir.claim()?
                && run_dir.server().is_none()
                && !is_mounted_outside(&run_dir)?
            {
                tracing::info!(run = %run_dir.path().display(), "removing the run directory of a killed mount");
                remove(&run_dir)?;
            }
        }
        Ok(())
    };
    if let Err(error) = swept() {
        tracing::debug!(
            error = format!("{error:#}"),
            "failed to remove the run directories of killed mounts; retried by the next mount or unmount"
        );
    }
}

/// Returns whether the mount has a kernel mount outside of its run directory.
fn is_mounted_outside(run_dir: &RunDirectory) -> Result<bool> {
    let table = MountTable::read().context("failed to read the table of mounts")?;
    Ok(table
        .iter()
        .any(|found| belongs_to(run_dir, found) && !found.point.starts_with(run_dir.path())))
}

/// Removes leftovers of killed processes of a mount: a server that lost its supervisor, mounts, sockets. The run
/// directory stays, since the caller has claimed it.
///
/// # Errors
/// If something cannot be removed.
pub(crate) fn leftovers(run_dir: &RunDirectory, directory: &Path) -> Result<()> {
    orphan::end(run_dir)?;
    while mounted_view(run_dir, directory)?.is_some() {
        detach_view(directory)?;
    }
    detach_all(run_dir)?;
    for file in [
        run_dir.pid(),
        run_dir.spec(),
        run_dir.orders(),
        run_dir.control(),
        run_dir.mounter(),
        run_dir.view_record(),
        run_dir.log(),
    ] {
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("failed to remove {}", file.display()));
            }
            _ => {}
        }
    }
    Ok(())
}
