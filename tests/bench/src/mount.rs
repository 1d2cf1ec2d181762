//! A mount made by the real command.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, WaitOptions};

use crate::memory::{Peak, Watch, processes};

/// How long a listing behind a mount may take before it is an error.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks at a mount.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    Kernel,
    Fuse,
}

impl View {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Fuse => "fuse",
        }
    }

    /// In words, for people.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Kernel => "kernel view",
            Self::Fuse => "FUSE view",
        }
    }
}

/// The words of a `millpond mount`.
#[derive(Debug, Clone)]
pub(crate) struct MountCommand {
    millpond: PathBuf,
    directory: PathBuf,
    words: Vec<OsString>,
    /// What is done with it, for the record of its memory.
    during: String,
}

impl MountCommand {
    pub(crate) fn new(
        millpond: &Path,
        (source, endpoint): (&str, &str),
        directory: PathBuf,
        cache: &Path,
        view: View,
    ) -> Self {
        let mut words: Vec<OsString> = ["--anonymous", "--endpoint", endpoint, "--view", view.name()]
            .map(OsString::from)
            .to_vec();
        words.extend(["--cache-dir".into(), cache.into(), source.into()]);
        Self {
            millpond: millpond.to_owned(),
            during: format!("{source}, {}", view.words()),
            directory,
            words,
        }
    }

    pub(crate) fn with(mut self, flag: &str, value: &str) -> Self {
        self.words.extend([flag, value].map(OsString::from));
        self
    }

    pub(crate) fn during(mut self, what: &str) -> Self {
        what.clone_into(&mut self.during);
        self
    }

    /// Mounts, and returns when the mount is usable.
    pub(crate) fn run(&self) -> Result<()> {
        let output = Command::new(&self.millpond)
            .arg("mount")
            .args(&self.words)
            .arg(&self.directory)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("failed to run {}", self.millpond.display()))?;
        if !output.status.success() {
            bail!(
                "millpond mount: {}\n{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    /// Mounts under watch.
    pub(crate) fn mount(&self) -> Result<Mount> {
        let watch = Watch::start();
        let begun = Instant::now();
        self.run()?;
        let took = begun.elapsed();
        let pids = processes()?;
        ensure!(
            pids.len() >= 2,
            "the mount has {} processes where a supervisor and a server should be",
            pids.len()
        );
        watch.settle(&pids);
        Ok(Mount {
            command: self.clone(),
            pids,
            watch: Some(watch),
            took,
        })
    }

    /// Takes a mount away that [`run`](Self::run) made.
    pub(crate) fn unmount(&self) -> Result<()> {
        let pids = processes()?;
        self.unmount_processes(&pids)
    }

    fn unmount_processes(&self, pids: &[i32]) -> Result<()> {
        command(&self.millpond, &["unmount"], &self.directory)?;
        for pid in pids.iter().filter_map(|&pid| Pid::from_raw(pid)) {
            // A server is its supervisor's to reap, and gone.
            let _gone = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
        }
        let left = processes()?;
        ensure!(left.is_empty(), "processes left after unmount: {left:?}");
        Ok(())
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

/// A mount that is up.
#[derive(Debug)]
pub(crate) struct Mount {
    command: MountCommand,
    pids: Vec<i32>,
    /// `None`: it was unmounted.
    watch: Option<Watch>,
    took: Duration,
}

impl Mount {
    pub(crate) fn path(&self) -> &Path {
        &self.command.directory
    }

    /// Supervisor and server.
    pub(crate) fn pids(&self) -> &[i32] {
        &self.pids
    }

    /// From the start of the command to its end, when the mount was usable.
    pub(crate) const fn took(&self) -> Duration {
        self.took
    }

    /// Fetches everything.
    pub(crate) fn warm_up(&self) -> Result<()> {
        command(&self.command.millpond, &["warmup"], self.path()).map(drop)
    }

    /// What `millpond stats --json` says.
    pub(crate) fn stats(&self) -> Result<serde_json::Value> {
        let said = command(&self.command.millpond, &["stats", "--json"], self.path())?;
        serde_json::from_str(&said).context("millpond stats --json did not print JSON")
    }

    /// Waits for the listing that follows a mount of a known catalog, so that it runs beside nothing that is timed.
    pub(crate) fn wait_for_refresh(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let stats = self.stats()?;
            let catalog = stats.get("catalog");
            let at = catalog.and_then(|catalog| catalog.get("refreshed_at_seconds"));
            if at.is_some_and(|at| !at.is_null()) {
                return Ok(());
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "no listing ended behind the mount for {PATIENCE:?}: {stats}"
            );
            pause(LOOK_INTERVAL);
        }
    }

    /// Unmounts, and says what memory the mount took.
    pub(crate) fn unmount(mut self) -> Result<Peak> {
        self.command.unmount_processes(&self.pids)?;
        let watch = self.watch.take().context("it was unmounted already")?;
        Ok(Peak {
            during: self.command.during.clone(),
            memory: watch.finish(),
        })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(watch) = self.watch.take() {
            // After an error. What this leaves the scratch directory's end takes away.
            let _failed = command(&self.command.millpond, &["unmount", "--force"], self.path());
            watch.finish();
        }
    }
}

fn command(millpond: &Path, words: &[&str], directory: &Path) -> Result<String> {
    let output = Command::new(millpond)
        .args(words)
        .arg(directory)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to run {}", millpond.display()))?;
    if !output.status.success() {
        bail!(
            "millpond {words:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits for what cannot say that it is done.
#[expect(
    clippy::disallowed_methods,
    reason = "there is no event to wait for, and nothing else to do"
)]
pub(crate) fn pause(length: Duration) {
    std::thread::sleep(length);
}
