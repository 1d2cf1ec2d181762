//! A mount made by the real command.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use origin::Credentials;
use serde_json::Value;

use crate::millpond::Millpond;
use crate::process::{Process, Role, processes};
use crate::scratch::{RUN, Scratch};
use crate::wait::try_wait_until;

/// After this a killed server has no successor. Only ever reached by a defect.
const SUCCESSOR_TIMEOUT: Duration = Duration::from_secs(60);

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

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Fuse => "fuse",
        }
    }

    /// Its name for people.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Kernel => "kernel view",
            Self::Fuse => "FUSE view",
        }
    }
}

/// The words of one `millpond mount`.
#[derive(Clone, Debug)]
pub struct MountCommand {
    millpond: Millpond,
    source: String,
    directory: PathBuf,
    words: Vec<OsString>,
    environment: BTreeMap<String, String>,
}

impl MountCommand {
    /// A mount of `source` at `scratch/mnt` with the cache in `scratch/cache`, by the program that was built with this one.
    ///
    /// # Panics
    /// If the program was not built, or a directory cannot be made.
    pub fn new(scratch: &Scratch, source: &str, view: View) -> Self {
        let millpond = Millpond::built(scratch).expect("the program that the tests run");
        Self::by(millpond, source, &scratch.directory("mnt"))
            .with("--view", view.name())
            .with("--cache-dir", scratch.directory("cache"))
    }

    /// A mount of `source` at `directory`, with no flags yet.
    pub fn by(millpond: Millpond, source: &str, directory: &Path) -> Self {
        Self {
            millpond,
            source: source.to_owned(),
            directory: directory.to_owned(),
            words: Vec::new(),
            environment: BTreeMap::new(),
        }
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

    /// [`Self::flag`], for a chain.
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

    /// Sets the credentials of an S3 server in the environment, as a person would.
    #[must_use]
    pub fn credentials(self, credentials: &Credentials) -> Self {
        self.env("AWS_ACCESS_KEY_ID", &credentials.access_key)
            .env("AWS_SECRET_ACCESS_KEY", &credentials.secret_key)
            .env("AWS_REGION", "us-east-1")
    }

    /// Where it mounts.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs the command to its end and returns how it ended.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn try_run(&self) -> Result<Output> {
        self.millpond
            .command()
            .envs(&self.environment)
            .arg("mount")
            .args(&self.words)
            .arg(&self.source)
            .arg(&self.directory)
            .output()
            .context("failed to run millpond mount")
    }

    /// [`Self::try_run`], for tests.
    ///
    /// # Panics
    /// If it cannot be run.
    pub fn run(&self) -> Output {
        self.try_run().unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Mounts: returns when the mount is usable.
    ///
    /// # Errors
    /// With what the command printed, where it fails.
    pub fn try_mount(&self) -> Result<Mount> {
        let output = self.try_run()?;
        if !output.status.success() {
            bail!("millpond mount: {}\n{}", output.status, printed(&output));
        }
        Ok(Mount {
            millpond: self.millpond.clone(),
            directory: self.directory.clone(),
            printed: printed(&output),
        })
    }

    /// [`Self::try_mount`], for tests.
    ///
    /// # Panics
    /// With what the command printed, if it fails.
    pub fn mount(&self) -> Mount {
        self.try_mount().unwrap_or_else(|error| panic!("{error:#}"))
    }
}

fn printed(output: &Output) -> String {
    let texts = [&output.stderr, &output.stdout].map(|text| String::from_utf8_lossy(text));
    texts.concat().trim().to_owned()
}

/// A mount that is up. Dropped, it is unmounted by the command; what that leaves, the scratch directory clears.
#[derive(Debug)]
pub struct Mount {
    millpond: Millpond,
    directory: PathBuf,
    printed: String,
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

    /// What the command printed.
    pub fn printed(&self) -> &str {
        &self.printed
    }

    /// Runs another `millpond` command on the mount.
    ///
    /// # Panics
    /// If it cannot be run.
    pub fn command(&self, words: &[&str]) -> Output {
        self.millpond
            .run(words, &self.directory)
            .unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Runs a command that must succeed, and returns what it printed.
    ///
    /// # Errors
    /// With what the command printed, where it fails.
    pub fn try_succeed(&self, words: &[&str]) -> Result<String> {
        self.millpond.succeed(words, &self.directory)
    }

    /// [`Self::try_succeed`], for tests.
    ///
    /// # Panics
    /// With what the command printed, if it fails.
    pub fn succeed(&self, words: &[&str]) -> String {
        self.try_succeed(words)
            .unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// What `millpond stats --json` prints.
    ///
    /// # Errors
    /// It fails, or prints no JSON.
    pub fn try_stats(&self) -> Result<Value> {
        let printed = self.try_succeed(&["stats", "--json"])?;
        serde_json::from_str(&printed).context("millpond stats --json did not print JSON")
    }

    /// [`Self::try_stats`], for tests.
    ///
    /// # Panics
    /// If it fails, or prints no JSON.
    pub fn stats(&self) -> Value {
        self.try_stats().unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// The mount's processes in one role.
    pub fn processes(&self, role: Role) -> Vec<Process> {
        processes(self.millpond.scratch())
            .into_iter()
            .filter(|process| process.role == role)
            .collect()
    }

    /// Kills the server with SIGKILL and returns its number; `None` where none is up now.
    pub fn kill_server(&self) -> Option<i32> {
        let server = self.processes(Role::Server).first().copied()?;
        server.kill();
        Some(server.pid)
    }

    /// Waits until a server other than `before` answers `stats`, and returns its number.
    ///
    /// # Errors
    /// None does within a minute.
    pub fn try_wait_for_successor(&self, before: i32) -> Result<i32> {
        let mut successor = None;
        try_wait_until("a successor of the server", SUCCESSOR_TIMEOUT, || {
            let server = self.try_stats().ok().and_then(|stats| {
                let server = stats.pointer("/mount/server_pid")?.as_i64()?;
                i32::try_from(server).ok()
            });
            successor = server.filter(|&server| server != before);
            successor.is_some()
        })?;
        successor.context("a server that answered")
    }

    /// [`Self::try_wait_for_successor`], for tests.
    ///
    /// # Panics
    /// After a minute.
    pub fn wait_for_successor(&self, before: i32) {
        self.try_wait_for_successor(before)
            .unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// The last lines of what the mount's processes logged; empty where there is no log.
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
        let last = lines.get(lines.len().saturating_sub(LINES)..);
        last.unwrap_or_default().join("\n")
    }

    /// Unmounts by the command, and requires that no process of the scratch directory is left.
    ///
    /// # Errors
    /// The command fails, or a process is left.
    pub fn try_unmount(self) -> Result<()> {
        self.try_succeed(&["unmount"])?;
        let left = processes(self.millpond.scratch());
        ensure!(left.is_empty(), "processes left after unmount: {left:?}");
        Ok(())
    }

    /// [`Self::try_unmount`], for tests.
    ///
    /// # Panics
    /// If the command fails or a process is left.
    pub fn unmount(self) {
        self.try_unmount().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if !processes(self.millpond.scratch()).is_empty() {
            // After a failure. What this leaves the end of the scratch directory clears.
            let _failed = self.millpond.run(&["unmount", "--force"], &self.directory);
        }
    }
}
