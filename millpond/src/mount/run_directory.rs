//! Run directory of a mount: the files that its processes share, and the locks that own it.
//!
//! `/run/millpond/<name>-<hash of the directory>` (without root below `$XDG_RUNTIME_DIR`), mode 0700:
//!
//! | name | content |
//! |---|---|
//! | `lock` | locked by the supervisor as long as it lives |
//! | `pid` | its PID |
//! | `server` | locked by the server as long as it lives; its PID |
//! | `spec.json` | options of the mount |
//! | `orders` | the supervisor's socket |
//! | `control` | the server's socket |
//! | `mounter` | the socket of the mounter |
//! | `view.json` | the server's view, for its successor |
//! | `log` | log of supervisor and server |
//! | `fuse/`, `catalog/gen-N/`, `memory/` | mounts |
//!
//! A lock lives as long as the descriptor that took it, so leftovers of killed processes are distinguished from running
//! ones without PIDs.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::FlockOperation;

use super::path::hash;

/// Characters of the directory's own name in that of its run directory: a socket's path has at most 107 bytes.
const NAME_CHARACTERS: usize = 24;

/// Attempts to claim a run directory that other processes keep removing.
const CLAIM_ATTEMPTS: usize = 16;

/// Attempts to lock a file: a process that only tests the lock ([`is_locked`]) holds it for microseconds, which must
/// refuse no claim.
const LOCK_ATTEMPTS: u32 = 20;

/// Interval between two attempts.
const LOCK_INTERVAL: Duration = Duration::from_millis(5);

/// Run directory of a mount, whether it exists or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunDirectory {
    run: PathBuf,
}

/// Exclusive claim of a run directory, until all copies of its descriptor are closed.
#[derive(Debug)]
pub(crate) struct RunDirectoryLock {
    lock: File,
}

impl RunDirectoryLock {
    /// Returns the locked file, which becomes the supervisor's standard input.
    pub(crate) fn into_file(self) -> File {
        self.lock
    }
}

impl RunDirectory {
    /// Returns the run directory for a mount at `directory`, which must be resolved.
    ///
    /// # Errors
    /// If there is no parent directory for run directories.
    pub(crate) fn of(directory: &Path) -> Result<Self> {
        Ok(Self::below(&root()?, directory))
    }

    /// Returns the run directory that a supervisor or a server was started with.
    pub(crate) fn at(run: &Path) -> Self {
        Self { run: run.to_owned() }
    }

    fn below(root: &Path, directory: &Path) -> Self {
        let name: String = directory
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .take(NAME_CHARACTERS)
            .collect();
        let hash = hash(directory.as_os_str().as_bytes());
        Self {
            run: root.join(format!("{name}-{hash}")),
        }
    }

    /// Returns all run directories of this user.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub(crate) fn all() -> Result<Vec<Self>> {
        let root = root()?;
        let entries = match std::fs::read_dir(&root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("failed to list {}", root.display())),
        };
        let mut run_dirs = Vec::new();
        for entry in entries {
            let run = entry
                .with_context(|| format!("failed to list {}", root.display()))?
                .path();
            // Directories of other programs have no lock file.
            if run.join("lock").is_file() {
                run_dirs.push(Self { run });
            }
        }
        Ok(run_dirs)
    }

    /// Returns the run directory of the mount that `path` lies on, the mount's directory, and the rest of the path.
    ///
    /// # Errors
    /// If there is no such mount.
    pub(crate) fn containing(path: &Path) -> Result<(Self, PathBuf, PathBuf)> {
        let absolute = std::path::absolute(path)?;
        // A mount has no symbolic links, so only the path that leads to it has to be resolved.
        let resolved = super::path::resolve(&absolute).unwrap_or(absolute);
        let root = root()?;
        for directory in resolved.ancestors() {
            let run_dir = Self::below(&root, directory);
            if run_dir.run.is_dir() {
                let rest = resolved.strip_prefix(directory).unwrap_or(Path::new(""));
                return Ok((run_dir, directory.to_owned(), rest.to_owned()));
            }
        }
        bail!("{} is not mounted by Millpond", path.display())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.run
    }

    /// Returns the mount's name in the mount table and at the keeper.
    pub(crate) fn name(&self) -> String {
        let name = self.run.file_name().unwrap_or_default();
        format!("millpond:{}", name.to_string_lossy())
    }

    pub(crate) fn pid(&self) -> PathBuf {
        self.run.join("pid")
    }

    pub(crate) fn spec(&self) -> PathBuf {
        self.run.join("spec.json")
    }

    pub(crate) fn orders(&self) -> PathBuf {
        self.run.join("orders")
    }

    pub(crate) fn control(&self) -> PathBuf {
        self.run.join("control")
    }

    pub(crate) fn mounter(&self) -> PathBuf {
        self.run.join("mounter")
    }

    pub(crate) fn view_record(&self) -> PathBuf {
        self.run.join("view.json")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.run.join("log")
    }

    pub(crate) fn fuse(&self) -> PathBuf {
        self.run.join("fuse")
    }

    pub(crate) fn catalogs(&self) -> PathBuf {
        self.run.join("catalog")
    }

    pub(crate) fn memory(&self) -> PathBuf {
        self.run.join("memory")
    }

    fn server_lock(&self) -> PathBuf {
        self.run.join("server")
    }

    fn lock(&self) -> PathBuf {
        self.run.join("lock")
    }

    /// Claims the run directory, creating it if needed. `None`: another process has claimed it.
    ///
    /// # Errors
    /// If it cannot be created or locked.
    pub(crate) fn claim(&self) -> Result<Option<RunDirectoryLock>> {
        let failed = || format!("failed to create the run directory {}", self.run.display());
        for _ in 0..CLAIM_ATTEMPTS {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.run)
                .with_context(failed)?;
            let lock = match open_lock(&self.lock()) {
                Ok(lock) => lock,
                // An exiting supervisor has just removed the directory.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).with_context(failed),
            };
            if !lock_exclusively(&lock).with_context(failed)? {
                return Ok(None);
            }
            // The file may have been removed between open and lock: then the lock is void.
            if is_same(&lock, &self.lock()) {
                return Ok(Some(RunDirectoryLock { lock }));
            }
        }
        bail!("{}: other processes keep removing it", failed())
    }

    /// Locks the run directory's `server` file: this process is the mount's server as long as the file is open.
    ///
    /// # Errors
    /// If another server is running.
    pub(crate) fn serve(&self) -> Result<File> {
        let failed = || format!("failed to lock {}", self.server_lock().display());
        let mut lock = open_lock(&self.server_lock()).with_context(failed)?;
        if !lock_exclusively(&lock).with_context(failed)? {
            bail!("{}: another server of the mount is running", failed());
        }
        lock.set_len(0)
            .and_then(|()| write!(lock, "{}", std::process::id()))
            .with_context(failed)?;
        Ok(lock)
    }

    /// Returns the server's PID; `None`: no server is running.
    pub(crate) fn server(&self) -> Option<rustix::process::Pid> {
        if !is_locked(&self.server_lock()) {
            return None;
        }
        let pid = std::fs::read_to_string(self.server_lock()).ok()?;
        rustix::process::Pid::from_raw(pid.trim().parse().ok()?)
    }

    /// Returns whether a supervisor, or a command, has claimed the run directory.
    pub(crate) fn is_claimed(&self) -> bool {
        is_locked(&self.lock())
    }

    /// Returns the supervisor's PID; `None`: no supervisor is running.
    pub(crate) fn supervisor(&self) -> Option<rustix::process::Pid> {
        if !self.is_claimed() {
            return None;
        }
        let pid = std::fs::read_to_string(self.pid()).ok()?.trim().parse().ok()?;
        rustix::process::Pid::from_raw(pid)
    }
}

/// Exclusive claim of a cache directory by a mount.
#[derive(Debug)]
pub(crate) struct CacheDirectoryLock {
    directory: PathBuf,
    /// Whether the directory was missing or empty.
    new: bool,
    /// Locked as long as this lives.
    _lock: File,
}

impl CacheDirectoryLock {
    /// Claims a cache directory.
    ///
    /// The store of a server locks it too; but between two servers of one mount it must stay refused to other mounts.
    ///
    /// # Errors
    /// If another mount has claimed it (the error names the mount), or it cannot be used.
    pub(crate) fn new(cache: &Path, directory: &Path) -> Result<Self> {
        let failed = || {
            format!(
                "failed to use the cache directory {}: check --cache-dir",
                cache.display()
            )
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(cache)
            .with_context(failed)?;
        let new = std::fs::read_dir(cache).with_context(failed)?.next().is_none();
        let mut lock = open_lock(&cache.join("mount.lock")).with_context(failed)?;
        if !lock_exclusively(&lock).with_context(failed)? {
            let other = std::fs::read(cache.join("mount.lock")).unwrap_or_default();
            bail!(
                "the cache directory {} is already in use by the mount at {}: give another --cache-dir, or unmount \
                 that one first",
                cache.display(),
                String::from_utf8_lossy(&other)
            );
        }
        lock.set_len(0)
            .and_then(|()| lock.write_all(directory.as_os_str().as_bytes()))
            .with_context(failed)?;
        Ok(Self {
            directory: cache.to_owned(),
            new,
            _lock: lock,
        })
    }

    /// Removes a cache directory that a failed mount has created: it must not stay bound to a source whose name was
    /// wrong.
    pub(crate) fn discard(&self) {
        if !self.new {
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            tracing::warn!(%error, directory = %self.directory.display(), "failed to remove the new cache directory of a failed mount");
        }
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Locks the file; returns `false` if another process has locked it.
fn lock_exclusively(file: &File) -> io::Result<bool> {
    for attempt in 1.. {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) if attempt < LOCK_ATTEMPTS => sleep_between_attempts(),
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

#[expect(
    clippy::disallowed_methods,
    reason = "flock(2) has no timeout; this never runs on an asynchronous thread"
)]
fn sleep_between_attempts() {
    std::thread::sleep(LOCK_INTERVAL);
}

/// Returns whether another process has locked the file. The test itself locks it for microseconds.
fn is_locked(path: &Path) -> bool {
    File::open(path).is_ok_and(|lock| {
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
    })
}

fn is_same(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Returns the parent of all run directories.
fn root() -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/run/millpond"));
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|directory| directory.is_absolute() && directory.is_dir());
    match runtime {
        Some(runtime) => Ok(runtime.join("millpond")),
        None => {
            bail!("there is no $XDG_RUNTIME_DIR for the mount's sockets: set it to a directory that you own")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_directory_is_claimed_once() {
        let root = tempfile::tempdir().unwrap();
        let run_dir = RunDirectory::below(root.path(), Path::new("/data"));
        let claim = run_dir.claim().unwrap().expect("free");
        assert!(run_dir.claim().unwrap().is_none());
        assert!(run_dir.is_claimed());
        drop(claim);
        assert!(!run_dir.is_claimed());
        assert!(run_dir.claim().unwrap().is_some());
    }

    #[test]
    fn a_claim_lives_on_in_copies_of_its_descriptor() {
        let root = tempfile::tempdir().unwrap();
        let run_dir = RunDirectory::below(root.path(), Path::new("/data"));
        let copy = {
            let claim = run_dir.claim().unwrap().expect("free");
            claim.into_file().try_clone().unwrap()
        };
        assert!(run_dir.is_claimed());
        drop(copy);
        assert!(!run_dir.is_claimed());
    }

    #[test]
    fn run_directories_are_private_and_short() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let long = format!("/data/{}", "ä".repeat(100));
        let run_dir = RunDirectory::below(root.path(), Path::new(&long));
        let _claim = run_dir.claim().unwrap().expect("free");
        assert_eq!(
            std::fs::metadata(run_dir.path()).unwrap().permissions().mode() & 0o777,
            0o700
        );
        assert!(run_dir.path().file_name().unwrap().len() <= NAME_CHARACTERS + 17);
    }

    #[test]
    fn directories_of_one_name_have_run_directories_of_their_own() {
        let root = Path::new("/run/millpond");
        let (a, b) = (
            RunDirectory::below(root, Path::new("/a/data")),
            RunDirectory::below(root, Path::new("/b/data")),
        );
        assert_ne!(a, b);
        assert_eq!(a, RunDirectory::below(root, Path::new("/a/data")));
    }

    #[test]
    fn a_cache_directory_serves_one_mount() {
        let root = tempfile::tempdir().unwrap();
        let cache = root.path().join("cache");
        let first = CacheDirectoryLock::new(&cache, Path::new("/first")).unwrap();
        let error = CacheDirectoryLock::new(&cache, Path::new("/second"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("already in use by the mount at /first"), "{error}");
        drop(first);
        CacheDirectoryLock::new(&cache, Path::new("/second")).unwrap();
    }

    #[test]
    fn only_a_new_cache_directory_is_discarded() {
        let root = tempfile::tempdir().unwrap();
        let cache = root.path().join("new");
        CacheDirectoryLock::new(&cache, Path::new("/data"))
            .unwrap()
            .discard();
        assert!(!cache.exists());
        std::fs::create_dir(&cache).unwrap();
        std::fs::write(cache.join("file"), b"of use").unwrap();
        CacheDirectoryLock::new(&cache, Path::new("/data"))
            .unwrap()
            .discard();
        assert_eq!(std::fs::read(cache.join("file")).unwrap(), b"of use");
    }
}
