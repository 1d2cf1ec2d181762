//! The directory of one run: everything lies in it, and it is removed with what runs and is mounted there.
//!
//! A test's has a name of its own. That of a longer run has a fixed name below a directory that is given, and is locked as
//! long as the run lives ([`Scratch::claim`]): a second run there is refused, and what a killed one left is cleared when the
//! next one begins.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use crate::millpond::Millpond;
use crate::process::processes;
use crate::report::complain;
use crate::wait::{poll, try_wait_until};

/// The environment variable by which the processes of a scratch directory are known, however far they are detached.
pub(crate) const MARK: &str = "MILLPOND_TEST_SCRATCH";

/// Where root's mounts have their run directories.
pub(crate) const RUN: &str = "/run/millpond";

const LOCK: &str = "lock";

/// How long killed processes may take to end. Only ever reached by a defect.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// How often, and how far apart, an interrupted run tries to remove what it made.
const REMOVAL_ATTEMPTS: u32 = 50;
const REMOVAL_RETRY_DELAY: Duration = Duration::from_millis(200);

/// See the module's documentation. Dropped, it kills what was started in it, unmounts what is mounted below it and is
/// removed.
#[derive(Debug)]
pub struct Scratch {
    root: PathBuf,
    interrupted: Arc<AtomicBool>,
    /// `None`: no other run knows the name. Held until the directory is removed.
    _lock: Option<File>,
}

impl Scratch {
    /// Makes a directory with a name of its own.
    ///
    /// # Panics
    /// Where the temporary directory cannot be written: no test can run there.
    #[expect(
        clippy::new_without_default,
        reason = "making a directory is not a default value"
    )]
    pub fn new() -> Self {
        Self::below(&std::env::temp_dir(), "millpond-e2e-").expect("make a scratch directory")
    }

    /// Makes a directory with a name of its own, which begins with `prefix`, below `parent`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn below(parent: &Path, prefix: &str) -> Result<Self> {
        let failed = || format!("failed to make a directory in {}", parent.display());
        let root = tempfile::Builder::new()
            .prefix(prefix)
            .tempdir_in(parent)
            .with_context(failed)?;
        Ok(Self {
            root: root.keep().canonicalize().with_context(failed)?,
            interrupted: Arc::default(),
            _lock: None,
        })
    }

    /// Makes and locks the directory `name` below `parent`, and clears what a killed run left there.
    ///
    /// # Errors
    /// Another run has it, or it cannot be made or cleared.
    pub fn claim(parent: &Path, name: &str) -> Result<Self> {
        let root = parent.join(name);
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
        clear(&root)?;
        Ok(Self {
            root,
            interrupted: Arc::default(),
            _lock: Some(lock),
        })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// A path in the directory.
    pub fn join(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A directory in it, made now if there is none.
    ///
    /// # Errors
    /// It cannot be made, or the run was interrupted.
    pub fn try_directory(&self, name: &str) -> Result<PathBuf> {
        ensure!(
            !self.interrupted.load(Ordering::SeqCst),
            "the run was interrupted"
        );
        let path = self.join(name);
        fs::create_dir_all(&path)
            .with_context(|| format!("failed to make the directory {}", path.display()))?;
        Ok(path)
    }

    /// [`Self::try_directory`], for tests.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn directory(&self, name: &str) -> PathBuf {
        self.try_directory(name)
            .unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// An empty directory in it; what was there is removed.
    ///
    /// # Errors
    /// It cannot be made, or the run was interrupted.
    pub fn fresh(&self, name: &str) -> Result<PathBuf> {
        let path = self.try_directory(name)?;
        fs::remove_dir_all(&path)
            .and_then(|()| fs::create_dir(&path))
            .with_context(|| format!("failed to empty the directory {}", path.display()))?;
        Ok(path)
    }

    /// A directory in it that is a file system of its own, `size` (as mount(8) takes it) large.
    ///
    /// # Panics
    /// If it cannot be mounted.
    pub fn tmpfs(&self, name: &str, size: &str) -> PathBuf {
        let path = self.directory(name);
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "millpond-e2e"])
            .arg(&path));
        path
    }

    /// A directory in it that is an ext4 of its own on a loop device, `bytes` large. The device ends with the mount,
    /// however that ends.
    ///
    /// # Panics
    /// If it cannot be made or mounted.
    pub fn ext4(&self, name: &str, bytes: u64) -> PathBuf {
        let path = self.directory(name);
        let image = self.join(&format!("{name}.ext4"));
        File::create(&image)
            .and_then(|file| file.set_len(bytes))
            .expect("make an image file");
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0"])
            .arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&path));
        path
    }

    /// A command of the program that was built with this one, which a test runs.
    ///
    /// # Panics
    /// If it was not built.
    pub fn millpond(&self) -> Command {
        let millpond = Millpond::built(self).expect("the program that the tests run");
        millpond.command()
    }

    /// The mount points below the directory, innermost first.
    ///
    /// # Errors
    /// /proc is not mounted.
    pub fn try_mounts(&self) -> Result<Vec<PathBuf>> {
        mounts_below(&self.root)
    }

    /// [`Self::try_mounts`], for tests.
    ///
    /// # Panics
    /// Where /proc is not mounted.
    pub fn mounts(&self) -> Vec<PathBuf> {
        self.try_mounts().unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Ends and removes everything.
    ///
    /// # Errors
    /// Something cannot be ended, unmounted or removed: it is left as it is, and named.
    pub fn close(self) -> Result<()> {
        remove(&self.root)
    }

    /// What must happen when the run is interrupted. From then on no directory is made here; what is being written
    /// meanwhile may hinder the removal, so that is retried.
    pub fn removal(&self) -> impl Fn() -> Result<()> + Send + 'static {
        let root = self.root.clone();
        let interrupted = Arc::clone(&self.interrupted);
        move || {
            interrupted.store(true, Ordering::SeqCst);
            let mut attempts = 0;
            loop {
                match remove(&root) {
                    Err(_busy) if attempts < REMOVAL_ATTEMPTS => poll(REMOVAL_RETRY_DELAY),
                    ended => return ended,
                }
                attempts += 1;
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        while self.interrupted.load(Ordering::SeqCst) {
            // The thread that handles the interrupt removes the directory, and then ends this process.
            std::thread::park();
        }
        if let Err(error) = remove(&self.root) {
            complain(format_args!("{error:#}"));
        }
    }
}

fn remove(root: &Path) -> Result<()> {
    if !root.exists() {
        return Ok(());
    }
    clear(root)?;
    fs::remove_dir_all(root).with_context(|| format!("failed to remove {}", root.display()))
}

/// Kills the processes of the directory, unmounts what is mounted below it or in their run directories, and removes all
/// but the lock.
fn clear(root: &Path) -> Result<()> {
    try_wait_until("killed processes to end", KILL_TIMEOUT, || {
        let left = processes(root);
        left.iter().for_each(|process| process.kill());
        left.is_empty()
    })?;
    unmount_below(root)?;
    for place in run_directories(root) {
        unmount_below(&place)?;
        match fs::remove_dir_all(&place) {
            // A mount that begins clears what others left, too.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("failed to remove {}", place.display()));
            }
            _removed => {}
        }
    }
    let entries = fs::read_dir(root).with_context(|| format!("failed to list {}", root.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name == LOCK) {
            continue;
        }
        let removed = if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.with_context(|| format!("failed to remove {}", path.display()))?;
    }
    Ok(())
}

fn unmount_below(directory: &Path) -> Result<()> {
    let mut failed = None;
    for point in mounts_below(directory)? {
        if let Err(error) = unmount(&point, UnmountFlags::DETACH) {
            failed = Some(error);
        }
    }
    // Removing a directory would empty what is mounted in it.
    let left = mounts_below(directory)?;
    ensure!(left.is_empty(), "still mounted: {left:?} ({failed:?})");
    Ok(())
}

/// The run directories of mounts in the directory: they stay where all processes were killed.
fn run_directories(root: &Path) -> Vec<PathBuf> {
    let path = format!("\"{}/", root.display());
    let Ok(places) = fs::read_dir(RUN) else {
        return Vec::new();
    };
    let places = places.flatten().map(|place| place.path());
    places
        .filter(|place| fs::read_to_string(place.join("spec.json")).is_ok_and(|spec| spec.contains(&path)))
        .collect()
}

/// The mount points below a directory, innermost first.
fn mounts_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mounts = procfs::process::Process::myself()
        .and_then(|process| process.mountinfo())
        .context("failed to read the table of mounts")?;
    let points = mounts.0.into_iter().map(|mount| mount.mount_point);
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(directory)).collect();
    below.reverse();
    Ok(below)
}

/// Runs a command that must succeed.
fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}: {printed}",
        output.status
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "claimed";

    #[test]
    fn a_run_leaves_nothing_and_a_second_one_is_refused() {
        let parent = tempfile::tempdir().expect("make a directory");
        let left = parent.path().join(NAME).join("left-by-a-killed-run");
        fs::create_dir_all(&left).expect("make a directory");
        let scratch = Scratch::claim(parent.path(), NAME).expect("claim the directory");
        assert!(!left.exists());
        let refused = Scratch::claim(parent.path(), NAME).expect_err("it is in use");
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
