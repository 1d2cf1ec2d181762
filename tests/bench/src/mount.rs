//! A mount under watch: how long it took to be usable, and what memory its processes take.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::{Millpond, Mount, MountCommand, View, poll};
use rustix::process::{Pid, WaitOptions};
use serde_json::Value;

use crate::memory::{Peak, Watch, processes};

/// How long a listing behind a mount may take before it is an error.
const LISTING_TIMEOUT: Duration = Duration::from_secs(120);

/// Between two looks at a mount.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A `millpond mount` that will be measured.
#[derive(Debug, Clone)]
pub(crate) struct MeasuredCommand {
    command: MountCommand,
    /// What is done with the mount, for the record of its memory.
    during: String,
}

impl MeasuredCommand {
    pub(crate) fn new(
        millpond: Millpond,
        (source, endpoint): (&str, &str),
        directory: &Path,
        cache: &Path,
        view: View,
    ) -> Self {
        let command = MountCommand::by(millpond, source, directory)
            .switch("--anonymous")
            .with("--endpoint", endpoint)
            .with("--view", view.name())
            .with("--cache-dir", cache);
        Self {
            command,
            during: format!("{source}, {}", view.label()),
        }
    }

    pub(crate) fn with(mut self, flag: &str, value: &str) -> Self {
        self.command.flag(flag, value);
        self
    }

    pub(crate) fn during(mut self, what: &str) -> Self {
        what.clone_into(&mut self.during);
        self
    }

    /// Mounts, and returns when the mount is usable. Its processes are not watched.
    pub(crate) fn run(&self) -> Result<Mount> {
        self.command.try_mount()
    }

    /// Mounts under watch.
    pub(crate) fn mount(&self) -> Result<MeasuredMount> {
        let watch = Watch::start();
        let begun = Instant::now();
        let mount = self.run()?;
        let took = begun.elapsed();
        let pids = processes()?;
        ensure!(
            pids.len() >= 2,
            "the mount has {} processes where a supervisor and a server should be",
            pids.len()
        );
        watch.settle(&pids);
        Ok(MeasuredMount {
            mount,
            during: self.during.clone(),
            pids,
            watch,
            took,
        })
    }

    pub(crate) fn directory(&self) -> &Path {
        self.command.directory()
    }
}

/// Unmounts, and reaps the processes, whose reaper this process is.
pub(crate) fn unmount(mount: Mount) -> Result<()> {
    let pids = processes()?;
    mount.try_unmount()?;
    for pid in pids.iter().filter_map(|&pid| Pid::from_raw(pid)) {
        // A server is its supervisor's to reap, and has been.
        let _reaped = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
    }
    let left = processes()?;
    ensure!(left.is_empty(), "processes left after unmount: {left:?}");
    Ok(())
}

/// A mount that is up and watched.
#[derive(Debug)]
pub(crate) struct MeasuredMount {
    // Dropped in this order after an error: the mount's processes end under watch.
    mount: Mount,
    watch: Watch,
    during: String,
    pids: Vec<i32>,
    took: Duration,
}

impl MeasuredMount {
    pub(crate) fn path(&self) -> &Path {
        self.mount.path()
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
        self.mount.try_succeed(&["warmup"]).map(drop)
    }

    /// What `millpond stats --json` prints.
    pub(crate) fn stats(&self) -> Result<Value> {
        self.mount.try_stats()
    }

    /// Waits for the listing that follows a mount of a known catalog, so that it runs beside nothing that is timed.
    pub(crate) fn wait_for_refresh(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let stats = self.stats()?;
            let at = stats.pointer("/catalog/refreshed_at_seconds");
            if at.is_some_and(|at| !at.is_null()) {
                return Ok(());
            }
            ensure!(
                begun.elapsed() < LISTING_TIMEOUT,
                "no listing ended behind the mount for {LISTING_TIMEOUT:?}: {stats}"
            );
            poll(POLL_INTERVAL);
        }
    }

    /// Unmounts, and returns what memory the mount took.
    pub(crate) fn unmount(self) -> Result<Peak> {
        unmount(self.mount)?;
        Ok(Peak {
            during: self.during,
            memory: self.watch.finish(),
        })
    }
}
