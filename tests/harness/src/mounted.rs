//! A mount made by the real command.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::process::{Process, Role, processes};
use crate::scratch::{MARK, RUN, Scratch};

/// How long anything may take before a test calls it hung. Only ever reached by a defect.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which view a mount shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Overlay of kernel file systems.
    Kernel,
    /// The FUSE tree itself.
    Fuse,
}

impl View {
    /// Both, for tests that run on both.
    pub const BOTH: [Self; 2] = [Self::Kernel, Self::Fuse];

    const fn flag(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Fuse => "fuse",
        }
    }
}

/// The folder where cargo put the binaries of this build.
fn build_folder() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    test.ancestors()
        .nth(2)
        .expect("tests lie in <profile>/deps")
        .to_owned()
}

/// A `millpond` command that a test runs, marked so that its descendants are found.
pub fn millpond(scratch: &Path) -> Command {
    let mut command = Command::new(build_folder().join("millpond"));
    command.env(MARK, scratch).stdin(Stdio::null());
    command
}

/// The words of one `millpond mount`.
#[derive(Clone, Debug)]
pub struct MountCommand {
    scratch: PathBuf,
    source: String,
    directory: PathBuf,
    words: Vec<OsString>,
    environment: BTreeMap<String, String>,
}

impl MountCommand {
    /// A mount of `source` at `scratch/mnt` with the cache in `scratch/cache`.
    pub fn new(scratch: &Scratch, source: &str, view: View) -> Self {
        let directory = scratch.directory("mnt");
        let cache = scratch.directory("cache");
        let mut command = Self {
            scratch: scratch.path().to_owned(),
            source: source.to_owned(),
            directory,
            words: Vec::new(),
            environment: BTreeMap::new(),
        };
        command.flag("--view", view.flag());
        command.flag("--cache-dir", cache);
        command
    }

    /// Mounts at `directory` instead.
    #[must_use]
    pub fn at(mut self, directory: &Path) -> Self {
        directory.clone_into(&mut self.directory);
        self
    }

    /// Adds a flag with its value, instead of the one that the flag had.
    pub fn flag(&mut self, name: &str, value: impl Into<OsString>) -> &mut Self {
        if let Some(at) = self.words.iter().position(|word| word == name) {
            self.words.drain(at..at + 2);
        }
        self.words.push(name.into());
        self.words.push(value.into());
        self
    }

    /// The same, for a chain.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.flag(name, value);
        self
    }

    /// Adds a flag that takes no value.
    #[must_use]
    pub fn switch(mut self, name: &str) -> Self {
        self.words.push(name.into());
        self
    }

    /// Sets an environment variable of all of the mount's processes.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Runs the command to its end and says how it went.
    ///
    /// # Panics
    /// If it cannot be run.
    pub fn run(&self) -> Output {
        millpond(&self.scratch)
            .envs(&self.environment)
            .arg("mount")
            .args(&self.words)
            .arg(&self.source)
            .arg(&self.directory)
            .output()
            .expect("run millpond mount")
    }

    /// Mounts.
    ///
    /// # Panics
    /// With what the command said, if it fails.
    pub fn mount(&self) -> Mount {
        let output = self.run();
        assert!(
            output.status.success(),
            "millpond mount: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        self.made()
    }

    /// The mount that a successful [`run`](Self::run) made.
    pub fn made(&self) -> Mount {
        Mount {
            scratch: self.scratch.clone(),
            directory: self.directory.clone(),
        }
    }
}

/// A mount that is up. Dropped, it is unmounted by the command; what that leaves, the scratch folder clears.
#[derive(Debug)]
pub struct Mount {
    scratch: PathBuf,
    directory: PathBuf,
}

impl Mount {
    /// Where the tree is.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// A path in the tree.
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.directory.join(path)
    }

    /// Runs another `millpond` command on the mount.
    ///
    /// # Panics
    /// If it cannot be run.
    pub fn command(&self, words: &[&str]) -> Output {
        millpond(&self.scratch)
            .args(words)
            .arg(&self.directory)
            .output()
            .expect("run millpond")
    }

    /// Runs a command that must succeed, and gives what it printed.
    ///
    /// # Panics
    /// With what the command said, if it fails.
    pub fn succeed(&self, words: &[&str]) -> String {
        let output = self.command(words);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "millpond {words:?}: {}\n{said}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        said
    }

    /// What `millpond stats --json` says.
    ///
    /// # Panics
    /// If it says nothing, or no JSON.
    pub fn stats(&self) -> serde_json::Value {
        serde_json::from_str(&self.succeed(&["stats", "--json"])).expect("millpond stats --json prints JSON")
    }

    /// The mount's processes in one role.
    pub fn processes(&self, role: Role) -> Vec<Process> {
        processes(&self.scratch)
            .into_iter()
            .filter(|process| process.role == role)
            .collect()
    }

    /// Kills the server with SIGKILL and gives its number; `None` where none was up at this moment.
    pub fn kill_server(&self) -> Option<i32> {
        let server = self.processes(Role::Server).first().copied()?;
        server.kill();
        Some(server.pid)
    }

    /// Waits until a server other than `before` answers `stats`.
    ///
    /// # Panics
    /// After a minute.
    pub fn wait_for_successor(&self, before: i32) {
        wait_until("a successor of the server", || {
            self.processes(Role::Server)
                .iter()
                .any(|process| process.pid != before)
                && self.command(&["stats", "--json"]).status.success()
        });
    }

    /// The last lines of what the mount's processes logged; empty where nobody knows.
    pub fn log(&self) -> String {
        const LINES: usize = 40;
        let Ok(places) = std::fs::read_dir(RUN) else {
            return String::new();
        };
        let directory = format!("\"{}\"", self.directory.display());
        let ours = places.flatten().map(|place| place.path()).find(|place| {
            std::fs::read_to_string(place.join("spec.json")).is_ok_and(|spec| spec.contains(&directory))
        });
        let log = ours.and_then(|place| std::fs::read_to_string(place.join("log")).ok());
        let log = log.unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    /// Unmounts by the command, and requires that nothing of the mount is left.
    ///
    /// # Panics
    /// If the command fails or something is left.
    pub fn unmount(self) {
        self.succeed(&["unmount"]);
        let left = processes(&self.scratch);
        assert!(left.is_empty(), "processes left after unmount: {left:?}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if !processes(&self.scratch).is_empty() {
            let _ = self.command(&["unmount"]);
        }
    }
}

/// Waits for a condition that must come.
///
/// # Panics
/// If it does not within a minute.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        pause(Duration::from_millis(20));
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test polls processes that cannot tell it anything"
)]
fn pause(length: Duration) {
    std::thread::sleep(length);
}
