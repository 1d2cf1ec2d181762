//! Taking away what a mount made: its mounts and its run directory.
//!
//! Nothing here asks the mount's own server anything, which may be gone.

use std::path::Path;

use anyhow::{Context, Result, bail};
use millpond_fs::mount::{Mount, MountTable, detach, unmount};

use super::orphan;
use super::run_directory::Place;

/// How often a busy mount is tried again: whoever looks at it in passing (an indexer, `df`) is gone soon.
const ATTEMPTS: u32 = 10;

/// What is mounted on `directory` by the mount at `place`, if anything.
pub(crate) fn shown(place: &Place, directory: &Path) -> Result<Option<Mount>> {
    let table = MountTable::read().context("failed to read the table of mounts")?;
    Ok(table
        .top_at(directory)
        .filter(|found| is_ours(place, found))
        .cloned())
}

/// Whether a mount is one of the mount at `place`: an overlay `millpond:NAME:GENERATION`, or the FUSE mount itself.
fn is_ours(place: &Place, found: &Mount) -> bool {
    let name = place.name();
    found
        .source
        .to_str()
        .and_then(|source| source.strip_prefix(&name))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

/// Whether a directory that is in use may be taken away too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnmountMode {
    /// It stays.
    No,
    /// Who uses it goes on until it is done.
    Yes,
}

/// Unmounts the view from `directory`; none is fine.
///
/// # Errors
/// Where it is in use.
pub(crate) async fn hide(place: &Place, directory: &Path, force: UnmountMode) -> Result<()> {
    for attempt in 1.. {
        if shown(place, directory)?.is_none() {
            return Ok(());
        }
        let Err(error) = unmount_view(directory) else {
            continue;
        };
        if attempt >= ATTEMPTS {
            if force == UnmountMode::No {
                bail!(
                    "{} is in use: close what is open there, or take it away all the same with --force ({error})",
                    directory.display()
                );
            }
            return detach_shown(directory);
        }
        tokio::time::sleep(std::time::Duration::from_millis(u64::from(attempt) * 10)).await;
    }
    Ok(())
}

fn unmount_view(directory: &Path) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(unmount(directory)?);
    }
    fusermount(&["-u"], directory)
}

/// Takes the mount out of the tree; who uses it goes on.
fn detach_shown(directory: &Path) -> Result<()> {
    let detached = if rustix::process::geteuid().is_root() {
        detach(directory).map_err(Into::into)
    } else {
        fusermount(&["-u", "-z"], directory)
    };
    detached.with_context(|| format!("failed to unmount {}", directory.display()))
}

/// What unmounts for those who are not root.
fn fusermount(flags: &[&str], directory: &Path) -> Result<()> {
    let output = std::process::Command::new("fusermount3")
        .args(flags)
        .arg("--")
        .arg(directory)
        .stdin(std::process::Stdio::null())
        .output()
        .context("failed to run fusermount3: install it (Debian: fuse3)")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}", said.trim());
    }
    Ok(())
}

/// Takes away everything that is mounted below the run directory, and the directory.
///
/// # Errors
/// Where something cannot be unmounted; the directory stays then.
pub(crate) fn remove(place: &Place) -> Result<()> {
    detach_all(place)?;
    match std::fs::remove_dir_all(place.run()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", place.run().display()))
        }
        _ => Ok(()),
    }
}

/// Detaches everything that is mounted below the run directory.
fn detach_all(place: &Place) -> Result<()> {
    let table = MountTable::read().context("failed to read the table of mounts")?;
    let mut points: Vec<_> = table
        .iter()
        .map(|mount| mount.point.clone())
        .filter(|point| point.starts_with(place.run()))
        .collect();
    // Later ones may lie on earlier ones.
    points.reverse();
    for point in points {
        detach(&point).with_context(|| format!("failed to unmount {}", point.display()))?;
    }
    Ok(())
}

/// Removes the run directories of mounts that are all gone: nobody supervises or serves them, and nothing of them is
/// mounted for anybody to see. What cannot be removed is left for the next time.
pub(crate) fn sweep() {
    let swept = || -> Result<()> {
        for place in Place::all()? {
            // Not claimed where it is of use: a claim is in the way of a mount that begins.
            if place.is_claimed() || place.server().is_some() || is_shown(&place)? {
                continue;
            }
            if let Some(_claim) = place.claim()?
                && place.server().is_none()
                && !is_shown(&place)?
            {
                tracing::info!(run = %place.run().display(), "removing what a killed mount left");
                remove(&place)?;
            }
        }
        Ok(())
    };
    if let Err(error) = swept() {
        tracing::debug!(
            error = format!("{error:#}"),
            "failed to remove what killed mounts left"
        );
    }
}

/// Whether anything of the mount can be seen outside of its run directory.
fn is_shown(place: &Place) -> Result<bool> {
    let table = MountTable::read().context("failed to read the table of mounts")?;
    Ok(table
        .iter()
        .any(|found| is_ours(place, found) && !found.point.starts_with(place.run())))
}

/// Clears what processes that were killed left of a mount: a server that lost its supervisor, mounts, sockets. The
/// run directory stays, since the caller has claimed it.
///
/// # Errors
/// Where something cannot be taken away.
pub(crate) fn leftovers(place: &Place, directory: &Path) -> Result<()> {
    orphan::end(place)?;
    while shown(place, directory)?.is_some() {
        detach_shown(directory)?;
    }
    detach_all(place)?;
    for file in [
        place.pid(),
        place.spec(),
        place.orders(),
        place.control(),
        place.mounter(),
        place.view_record(),
        place.log(),
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
