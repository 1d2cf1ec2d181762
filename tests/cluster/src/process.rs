//! A process of a cluster, which outlives the program that starts it.
//!
//! It is recorded as "pid start-time": a pid alone may be another process's by the time it is stopped. The record's path
//! is in the environment of the process, by which [`kill_unrecorded`] finds one whose record was never written, since the
//! program that started it was killed in between.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};

/// After this, a process that does not heed a signal is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The end of a killed process is not waited for longer than this.
const KILL_TIMEOUT: Duration = Duration::from_secs(60);

/// Names the record of a process in its environment.
const RECORD_VARIABLE: &str = "MILLPOND_CLUSTER_RECORD";

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    name: String,
    record: PathBuf,
    log: PathBuf,
}

impl Process {
    pub(crate) fn new(name: &str, record: PathBuf, log: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            record,
            log,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Starts it in a process group of its own, so that a Ctrl-C at the terminal leaves it alone; its output goes to
    /// its log.
    pub(crate) fn start(&self, mut command: Command) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut child = command
            .env(RECORD_VARIABLE, &self.record)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("failed to start {}", command.get_program().display()))?;
        let pid = Pid::from_child(&child);
        let started = start_time(pid).unwrap_or_default();
        fs::write(&self.record, format!("{} {started}\n", pid.as_raw_nonzero()))?;
        // If it ends before this program, it is no zombie.
        std::thread::spawn(move || child.wait());
        Ok(())
    }

    /// Returns whether it was started, by this or an earlier program, and not stopped.
    pub(crate) fn is_recorded(&self) -> bool {
        self.record.exists()
    }

    /// Returns its pid while it runs.
    pub(crate) fn pid(&self) -> Option<Pid> {
        let record = fs::read_to_string(&self.record).ok()?;
        let (pid, started) = record.trim().split_once(' ')?;
        let pid = Pid::from_raw(pid.parse().ok()?)?;
        (start_time(pid)? == started.parse::<u64>().ok()?).then_some(pid)
    }

    /// Sends a signal to the process alone.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self
            .pid()
            .with_context(|| format!("{} is not running", self.name))?;
        kill_process(pid, signal).with_context(|| format!("failed to signal {}", self.name))
    }

    /// Sends `signal` to the process and what it started, kills what does not heed it for some seconds, and returns when
    /// the process has ended. One that does not run is stopped already.
    pub(crate) fn stop(&self, signal: Signal) -> Result<()> {
        if let Some(pid) = self.pid() {
            // It leads a group of its own: what it started ends with it. A failure here means that it ended meanwhile.
            let _ended = kill_process_group(pid, signal);
            let _ended = kill_process_group(pid, Signal::CONT);
            self.wait_for_end(pid, STOP_TIMEOUT)?;
            let _ended = kill_process_group(pid, Signal::KILL);
            let ended = self.wait_for_end(pid, KILL_TIMEOUT)?;
            ensure!(ended, "{} does not end although it was killed", self.name);
        }
        if self.record.exists() {
            fs::remove_file(&self.record)?;
        }
        Ok(())
    }

    /// Waits for its end; `false`: it still runs.
    fn wait_for_end(&self, pid: Pid, timeout: Duration) -> Result<bool> {
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
            return Ok(self.pid().is_none());
        };
        // The handle is of the process only if that has not ended before it was opened.
        Ok(self.pid().is_none() || has_ended(&handle, timeout)?)
    }
}

/// Kills processes whose environment names a record in the folder `records` that is not there, or is of a process that
/// has ended.
pub(crate) fn kill_unrecorded(records: &Path) -> Result<()> {
    for process in procfs::process::all_processes()?.flatten() {
        // A process that has ended meanwhile has no environment.
        let environment = process.environ().unwrap_or_default();
        let record = environment.get(OsStr::new(RECORD_VARIABLE)).map(Path::new);
        let Some(record) = record.filter(|record| record.parent() == Some(records)) else {
            continue;
        };
        let (Some(pid), Some(name)) = (Pid::from_raw(process.pid()), record.file_name()) else {
            continue;
        };
        // What a recorded process has started, and its environment says the same of, ends with it.
        let is_recorded = Process::new(&name.to_string_lossy(), record.to_owned(), PathBuf::new())
            .pid()
            .is_some();
        if is_recorded {
            continue;
        }
        if let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) {
            let _ended = kill_process(pid, Signal::KILL);
            let ended = has_ended(&handle, KILL_TIMEOUT)?;
            ensure!(
                ended,
                "the process {} does not end although it was killed",
                process.pid()
            );
        }
    }
    Ok(())
}

/// Waits for the end of a process; `false`: it still runs.
fn has_ended(process: &OwnedFd, timeout: Duration) -> Result<bool> {
    let timeout = Timespec::try_from(timeout)?;
    let mut events = [PollFd::new(process, PollFlags::IN)];
    Ok(poll(&mut events, Some(&timeout))? > 0)
}

/// Returns when a process started, in clock ticks since the machine did; `None`: it does not run.
pub(crate) fn start_time(pid: Pid) -> Option<u64> {
    let stat = procfs::process::Process::new(pid.as_raw_nonzero().get())
        .ok()?
        .stat()
        .ok()?;
    (stat.state != 'Z').then_some(stat.starttime)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::state::State;

    fn sleeping(state: &State, script: &str) -> Process {
        state.create().unwrap();
        let process = state.process("sleeper");
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        process.start(command).unwrap();
        process
    }

    #[test]
    fn is_known_to_another_program_and_stopped_with_what_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path());
        let process = sleeping(&state, "sleep 1000 & echo $!; wait");
        let pid = process.pid().unwrap();
        // What another program would see.
        assert_eq!(state.process("sleeper").pid(), Some(pid));
        let child = loop {
            if let Ok(pid) = fs::read_to_string(process.log()).unwrap().trim().parse() {
                break Pid::from_raw(pid).unwrap();
            }
        };
        process.stop(Signal::TERM).unwrap();
        assert!(process.pid().is_none() && !process.is_recorded());
        let deadline = Instant::now() + Duration::from_secs(10);
        while start_time(child).is_some() {
            assert!(Instant::now() < deadline, "its child still runs");
        }
        process.stop(Signal::TERM).unwrap();
    }

    #[test]
    fn is_stopped_while_it_is_suspended() {
        let dir = tempfile::tempdir().unwrap();
        let process = sleeping(&State::at(dir.path()), "exec sleep 1000");
        process.signal(Signal::STOP).unwrap();
        process.stop(Signal::TERM).unwrap();
        assert!(process.pid().is_none());
    }

    #[test]
    fn is_killed_if_its_record_was_never_written() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path());
        let process = sleeping(&state, "exec sleep 1000");
        let pid = process.pid().unwrap();
        let records = dir.path().join("pids");
        kill_unrecorded(&records).unwrap();
        assert_eq!(process.pid(), Some(pid));
        fs::remove_file(records.join("sleeper")).unwrap();
        kill_unrecorded(&records).unwrap();
        assert!(start_time(pid).is_none());
    }

    #[test]
    fn does_not_take_another_process_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path());
        state.create().unwrap();
        let process = state.process("other");
        let (pid, started) = (std::process::id(), 1);
        fs::write(dir.path().join("pids/other"), format!("{pid} {started}\n")).unwrap();
        assert!(process.pid().is_none());
        assert!(process.signal(Signal::TERM).is_err());
        process.stop(Signal::KILL).unwrap();
        assert!(!process.is_recorded());
    }
}
