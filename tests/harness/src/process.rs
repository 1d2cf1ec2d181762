//! The processes of a mount, as the kernel lists them.

use std::ffi::OsStr;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use crate::scratch::MARK;

/// Which of Millpond's processes one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Holds the FUSE descriptor and starts servers.
    Supervisor,
    /// Worker, FUSE server and views of one mount.
    Server,
    /// A command that a test runs.
    Command,
}

/// One process that a test started, directly or through others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// What it does.
    pub role: Role,
}

impl Process {
    /// Sends SIGKILL; a process that has ended already is fine.
    pub fn kill(self) {
        self.signal(Signal::KILL);
    }

    /// Sends SIGTERM; a process that has ended already is fine.
    pub fn terminate(self) {
        self.signal(Signal::TERM);
    }

    fn signal(self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid) {
            let _ended = kill_process(pid, signal);
        }
    }
}

/// The living processes that were started for the scratch directory, supervisors before servers.
pub fn processes(scratch: &Path) -> Vec<Process> {
    let Ok(all) = procfs::process::all_processes() else {
        return Vec::new();
    };
    let mut found: Vec<Process> = all
        .flatten()
        // Only Millpond's are asked for their environment: another that hangs in a page fault would not answer.
        .filter(|process| process.stat().is_ok_and(|stat| stat.comm == "millpond"))
        .filter(|process| {
            process.environ().is_ok_and(|environ| {
                environ
                    .get(OsStr::new(MARK))
                    .is_some_and(|mark| Path::new(mark) == scratch)
            }) && process.stat().is_ok_and(|stat| stat.state != 'Z')
        })
        .map(|process| {
            let words = process.cmdline().unwrap_or_default();
            let role = match words.get(1).map(String::as_str) {
                Some("supervise") => Role::Supervisor,
                Some("serve") => Role::Server,
                _ => Role::Command,
            };
            Process {
                pid: process.pid,
                role,
            }
        })
        .collect();
    found.sort_by_key(|process| (process.role != Role::Supervisor, process.pid));
    found
}
