//! The directory of a run: everything lies in it, and it is gone afterwards.
//!
//! It has one name below the directory that was given, and is locked as long as the run lives: a second run there is
//! refused, and what a killed one left is cleared when the next one begins. Mounts lie in `mnt`.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

const NAME: &str = "millpond-figures-scratch";
const LOCK: &str = "lock";
const MOUNTS: &str = "mnt";

/// A run's directory. Dropped, it is unmounted and removed.
#[derive(Debug)]
pub(crate) struct Scratch {
    root: PathBuf,
    millpond: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes the directory below `parent`, and clears what a killed run left there.
    pub(crate) fn claim(parent: &Path, millpond: &Path) -> Result<Self> {
        let root = parent.join(NAME);
        let failed = || format!("failed to make the scratch directory {}", root.display());
        fs::create_dir_all(&root).with_context(failed)?;
        let root = root.canonicalize().with_context(failed)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(root.join(LOCK))
            .with_context(failed)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => bail!(
                "another run measures in {}: wait for its end, or give another --dir",
                root.display()
            ),
            Err(error) => return Err(error).with_context(failed),
        }
        clear(&root, millpond)?;
        Ok(Self {
            root,
            millpond: millpond.to_owned(),
            _lock: lock,
        })
    }

    /// What must happen when the run is interrupted.
    pub(crate) fn removal(&self) -> impl Fn() -> Result<()> + Send + 'static {
        let (root, millpond) = (self.root.clone(), self.millpond.clone());
        move || remove(&root, &millpond)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// An empty directory; what was there is removed.
    pub(crate) fn fresh(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        let failed = || format!("failed to make the directory {}", path.display());
        if path.exists() {
            fs::remove_dir_all(&path).with_context(failed)?;
        }
        fs::create_dir_all(&path).with_context(failed)?;
        Ok(path)
    }

    /// An empty directory to mount at.
    pub(crate) fn mountpoint(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(MOUNTS).join(name);
        fs::create_dir_all(&path)
            .with_context(|| format!("failed to make the mount point {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.root, &self.millpond) {
            crate::command::complain(format_args!("{error:#}"));
        }
    }
}

fn remove(root: &Path, millpond: &Path) -> Result<()> {
    clear(root, millpond)?;
    fs::remove_dir_all(root).with_context(|| format!("failed to remove {}", root.display()))
}

/// Ends the mounts below the directory and removes all but the lock.
fn clear(root: &Path, millpond: &Path) -> Result<()> {
    for point in fs::read_dir(root.join(MOUNTS)).into_iter().flatten().flatten() {
        // The answer does not matter: most are unmounted already, and what stays is seen below.
        let _not_mounted = Command::new(millpond)
            .args(["unmount", "--force"])
            .arg(point.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
    for point in mounts_below(root)? {
        rustix::mount::unmount(&point, UnmountFlags::DETACH)
            .with_context(|| format!("failed to unmount {}", point.display()))?;
    }
    let entries = fs::read_dir(root).with_context(|| format!("failed to list {}", root.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name == LOCK) {
            continue;
        }
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.with_context(|| format!("failed to remove {}", path.display()))?;
    }
    Ok(())
}

/// Innermost first.
fn mounts_below(root: &Path) -> Result<Vec<PathBuf>> {
    let mounts = procfs::process::Process::myself()
        .and_then(|process| process.mountinfo())
        .context("failed to read the table of mounts")?;
    let points = mounts.0.into_iter().map(|mount| mount.mount_point);
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(root)).collect();
    below.reverse();
    Ok(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_leaves_nothing_and_a_second_one_is_refused() {
        let parent = tempfile::tempdir().expect("make a directory");
        let no_program = Path::new("/nonexistent/millpond");
        let left = parent.path().join(NAME).join("left-by-a-killed-run");
        fs::create_dir_all(&left).expect("make a directory");
        let scratch = Scratch::claim(parent.path(), no_program).expect("claim the directory");
        assert!(!left.exists());
        let refused = Scratch::claim(parent.path(), no_program).expect_err("it is in use");
        assert!(refused.to_string().contains("another run"), "{refused:#}");
        let fresh = scratch.fresh("data").expect("make a directory");
        fs::write(fresh.join("file"), "x").expect("write");
        assert_eq!(
            fs::read_dir(scratch.fresh("data").expect("again"))
                .expect("list")
                .count(),
            0
        );
        drop(scratch);
        assert_eq!(fs::read_dir(parent.path()).expect("list").count(), 0);
    }
}
