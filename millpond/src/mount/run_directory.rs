//! The run directory of a mount: what its processes share, and who may have it.
//!
//! `/run/millpond/<name>-<hash of the directory>` (without root below `$XDG_RUNTIME_DIR`), mode 0700:
//!
//! | name | what |
//! |---|---|
//! | `lock` | locked by the supervisor as long as it lives |
//! | `pid` | its process number |
//! | `server` | locked by the server as long as it lives; its process number |
//! | `spec.json` | what was asked for |
//! | `orders` | the supervisor's socket |
//! | `control` | the server's socket |
//! | `mounter` | the socket where the server has mounts made |
//! | `view.json` | what the server shows, for its successor |
//! | `log` | what supervisor and server log |
//! | `fuse/`, `catalog/gen-N/`, `memory/` | mounts |
//!
//! A lock lives as long as the descriptor that a process got it by, so what a killed run left is told from what runs
//! without looking at process numbers.

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

/// How often a run directory may vanish while it is claimed.
const CLAIM_ATTEMPTS: usize = 16;

/// Who only looks whether a file is locked ([`is_locked`]) has it for a moment; that must refuse nobody.
const LOCK_ATTEMPTS: u32 = 20;

/// Between two of them.
const LOCK_INTERVAL: Duration = Duration::from_millis(5);

/// A mount's run directory, whether it exists or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    run: PathBuf,
}

/// The right to a run directory, until it is dropped and all copies of its descriptor are closed.
#[derive(Debug)]
pub(crate) struct RunDirectoryLock {
    lock: File,
}

impl RunDirectoryLock {
    /// The locked file: the supervisor gets it as its standard input.
    pub(crate) fn into_file(self) -> File {
        self.lock
    }
}

impl Place {
    /// The run directory for what is mounted at `directory`, which must be resolved.
    ///
    /// # Errors
    /// Where there is no place for run directories.
    pub(crate) fn of(directory: &Path) -> Result<Self> {
        Ok(Self::below(&root()?, directory))
    }

    /// The run directory that a supervisor or a server was started with.
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

    /// All run directories of this user.
    ///
    /// # Errors
    /// Where they cannot be listed.
    pub(crate) fn all() -> Result<Vec<Self>> {
        let root = root()?;
        let entries = match std::fs::read_dir(&root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("failed to list {}", root.display())),
        };
        let mut places = Vec::new();
        for entry in entries {
            let run = entry
                .with_context(|| format!("failed to list {}", root.display()))?
                .path();
            // Others' directories have no lock.
            if run.join("lock").is_file() {
                places.push(Self { run });
            }
        }
        Ok(places)
    }

    /// The place of the mount that `path` lies on, its directory, and the rest of the path.
    ///
    /// # Errors
    /// Where there is no such mount.
    pub(crate) fn containing(path: &Path) -> Result<(Self, PathBuf, PathBuf)> {
        let absolute = std::path::absolute(path)?;
        // Symbolic links within the mount do not exist, so only what leads there has to be resolved.
        let resolved = super::path::resolve(&absolute).unwrap_or(absolute);
        let root = root()?;
        for directory in resolved.ancestors() {
            let place = Self::below(&root, directory);
            if place.run.is_dir() {
                let rest = resolved.strip_prefix(directory).unwrap_or(Path::new(""));
                return Ok((place, directory.to_owned(), rest.to_owned()));
            }
        }
        bail!("{} is not mounted by Millpond", path.display())
    }

    pub(crate) fn run(&self) -> &Path {
        &self.run
    }

    /// What the mount is called in the table of mounts and at the keeper.
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

    /// Claims the run directory, making it where it is not. `None`: a supervisor has it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn claim(&self) -> Result<Option<RunDirectoryLock>> {
        let failed = || format!("failed to make the run directory {}", self.run.display());
        for _ in 0..CLAIM_ATTEMPTS {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.run)
                .with_context(failed)?;
            let lock = match open_lock(&self.lock()) {
                Ok(lock) => lock,
                // A supervisor that ends has just removed the directory.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).with_context(failed),
            };
            if !lock_exclusively(&lock).with_context(failed)? {
                return Ok(None);
            }
            // Between opening and locking the file may have been removed: then the lock means nothing.
            if is_same(&lock, &self.lock()) {
                return Ok(Some(RunDirectoryLock { lock }));
            }
        }
        bail!("{}: it is removed again and again", failed())
    }

    /// Says that this process is the mount's server, for as long as the file is open.
    ///
    /// # Errors
    /// Where another server lives.
    pub(crate) fn serve(&self) -> Result<File> {
        let failed = || format!("failed to lock {}", self.server_lock().display());
        let mut lock = open_lock(&self.server_lock()).with_context(failed)?;
        if !lock_exclusively(&lock).with_context(failed)? {
            bail!("{}: another server of the mount lives", failed());
        }
        lock.set_len(0)
            .and_then(|()| write!(lock, "{}", std::process::id()))
            .with_context(failed)?;
        Ok(lock)
    }

    /// The server's process number, while it lives.
    pub(crate) fn server(&self) -> Option<rustix::process::Pid> {
        if !is_locked(&self.server_lock()) {
            return None;
        }
        let pid = std::fs::read_to_string(self.server_lock()).ok()?;
        rustix::process::Pid::from_raw(pid.trim().parse().ok()?)
    }

    /// Whether a supervisor has the run directory.
    pub(crate) fn is_claimed(&self) -> bool {
        is_locked(&self.lock())
    }

    /// The supervisor's process number, while it lives.
    pub(crate) fn supervisor(&self) -> Option<rustix::process::Pid> {
        if !self.is_claimed() {
            return None;
        }
        let pid = std::fs::read_to_string(self.pid()).ok()?.trim().parse().ok()?;
        rustix::process::Pid::from_raw(pid)
    }
}

/// A cache directory that this process has.
#[derive(Debug)]
pub(crate) struct CacheDirectoryLock {
    directory: PathBuf,
    /// It was not there, or nothing was in it.
    new: bool,
    /// Held as long as the claim.
    _lock: File,
}

impl CacheDirectoryLock {
    /// Claims a cache directory, or says whose it is.
    ///
    /// The store of a server locks it too; but between two servers of one mount it is free, and must not be for others.
    ///
    /// # Errors
    /// With the words for the user.
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

    /// Takes back what a mount that came to nothing has made: a directory that holds nothing of use must not belong to
    /// a source whose name was wrong.
    pub(crate) fn give_up(&self) {
        if !self.new {
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            tracing::warn!(%error, directory = %self.directory.display(), "failed to remove a new cache directory");
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

/// Locks the file, if nobody else has it.
fn lock_exclusively(file: &File) -> io::Result<bool> {
    for attempt in 1.. {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) if attempt < LOCK_ATTEMPTS => pause(),
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

#[expect(
    clippy::disallowed_methods,
    reason = "flock(2) waits for ever or not at all; this is no asynchronous thread's work"
)]
fn pause() {
    std::thread::sleep(LOCK_INTERVAL);
}

/// Whether somebody has the file locked. For a moment it is locked by this.
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

/// Where run directories lie.
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
            bail!("there is no $XDG_RUNTIME_DIR for the mount's sockets: set it to a directory of your own")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_claimed_once() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::below(root.path(), Path::new("/data"));
        let claim = place.claim().unwrap().expect("free");
        assert!(place.claim().unwrap().is_none());
        assert!(place.is_claimed());
        drop(claim);
        assert!(!place.is_claimed());
        assert!(place.claim().unwrap().is_some());
    }

    #[test]
    fn a_claim_lives_on_in_copies_of_its_descriptor() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::below(root.path(), Path::new("/data"));
        let copy = {
            let claim = place.claim().unwrap().expect("free");
            claim.into_file().try_clone().unwrap()
        };
        assert!(place.is_claimed());
        drop(copy);
        assert!(!place.is_claimed());
    }

    #[test]
    fn places_are_private_and_short() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let long = format!("/data/{}", "ä".repeat(100));
        let place = Place::below(root.path(), Path::new(&long));
        let _claim = place.claim().unwrap().expect("free");
        assert_eq!(
            std::fs::metadata(place.run()).unwrap().permissions().mode() & 0o777,
            0o700
        );
        assert!(place.run().file_name().unwrap().len() <= NAME_CHARACTERS + 17);
    }

    #[test]
    fn directories_of_one_name_have_places_of_their_own() {
        let root = Path::new("/run/millpond");
        let (a, b) = (
            Place::below(root, Path::new("/a/data")),
            Place::below(root, Path::new("/b/data")),
        );
        assert_ne!(a, b);
        assert_eq!(a, Place::below(root, Path::new("/a/data")));
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
    fn only_a_new_cache_directory_is_given_up() {
        let root = tempfile::tempdir().unwrap();
        let cache = root.path().join("new");
        CacheDirectoryLock::new(&cache, Path::new("/data"))
            .unwrap()
            .give_up();
        assert!(!cache.exists());
        std::fs::create_dir(&cache).unwrap();
        std::fs::write(cache.join("kept"), b"of use").unwrap();
        CacheDirectoryLock::new(&cache, Path::new("/data"))
            .unwrap()
            .give_up();
        assert_eq!(std::fs::read(cache.join("kept")).unwrap(), b"of use");
    }
}
