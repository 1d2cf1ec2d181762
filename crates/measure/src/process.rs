//! CPU time of processes.

use std::collections::HashSet;
use std::ops::Sub;
use std::time::Duration;

use procfs::process::{Process, Stat};
use procfs::{ProcError, ProcResult};

use crate::{Error, Result};

/// CPU time used by processes: all their threads, exited ones included, without their children.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// In user mode.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
}

impl Usage {
    /// Returns the time of one process, in steps of 10 ms.
    ///
    /// # Errors
    /// If it does not exist.
    pub fn of(pid: i32) -> Result<Self> {
        let stat = Process::new(pid).and_then(|process| process.stat());
        let stat = stat.map_err(|source| Error::Process { pid, source })?;
        let ticks = procfs::ticks_per_second().max(1);
        let time = |count: u64| Duration::from_secs_f64(count as f64 / ticks as f64);
        Ok(Self {
            user: time(stat.utime),
            system: time(stat.stime),
        })
    }

    /// Returns the time of several processes together; an exited one counts as zero.
    ///
    /// # Errors
    /// If a running one cannot be read.
    pub fn of_all(pids: &[i32]) -> Result<Self> {
        let mut sum = Self::default();
        for &pid in pids {
            match Self::of(pid) {
                Ok(usage) => {
                    sum = Self {
                        user: sum.user + usage.user,
                        system: sum.system + usage.system,
                    }
                }
                Err(Error::Process {
                    source: ProcError::NotFound(_),
                    ..
                }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sum)
    }

    /// Returns the time of this process.
    ///
    /// # Errors
    /// If /proc is not mounted.
    pub fn own() -> Result<Self> {
        Self::of(rustix::process::getpid().as_raw_nonzero().get())
    }

    /// Returns both modes together.
    pub fn total(self) -> Duration {
        self.user + self.system
    }
}

impl Sub for Usage {
    type Output = Self;

    /// Returns the time between two samples; never negative.
    fn sub(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

/// Returns the processes of a program that have this argument, without zombies.
///
/// The program is the kernel's name of it (at most 15 bytes). It is compared first because reading the arguments of a process
/// takes its memory lock: for an unrelated process that is stuck in a page fault (on a file system whose server does not
/// respond) that never returns.
///
/// # Errors
/// If the processes cannot be listed.
pub fn with_argument(program: &str, word: &str) -> Result<Vec<i32>> {
    living(|process, stat| {
        stat.comm == program
            && process
                .cmdline()
                .is_ok_and(|words| words.iter().any(|known| known == word))
    })
}

/// Returns the process and all its descendants, without zombies.
///
/// # Errors
/// If the processes cannot be listed.
pub fn descendants(root: i32) -> Result<Vec<i32>> {
    let mut found: Vec<i32> = below(root)?.into_iter().map(|relative| relative.pid).collect();
    found.push(root);
    found.sort_unstable();
    Ok(found)
}

/// Returns the processes of a program below another process, without zombies. Orphaned ones are below `root` if it is a
/// child subreaper.
///
/// # Errors
/// If the processes cannot be listed.
pub fn program_below(root: i32, program: &str) -> Result<Vec<i32>> {
    let found = below(root)?.into_iter();
    let mut found: Vec<i32> = found
        .filter(|relative| relative.program == program)
        .map(|relative| relative.pid)
        .collect();
    found.sort_unstable();
    Ok(found)
}

struct Relative {
    pid: i32,
    parent: i32,
    program: String,
}

fn below(root: i32) -> Result<Vec<Relative>> {
    let mut others = Vec::new();
    living(|process, stat| {
        if process.pid != root {
            others.push(Relative {
                pid: process.pid,
                parent: stat.ppid,
                program: stat.comm.clone(),
            });
        }
        false
    })?;
    let mut known = HashSet::from([root]);
    let mut found = Vec::new();
    loop {
        let (more, rest): (Vec<_>, Vec<_>) = others
            .into_iter()
            .partition(|other| known.contains(&other.parent));
        if more.is_empty() {
            return Ok(found);
        }
        known.extend(more.iter().map(|relative| relative.pid));
        found.extend(more);
        others = rest;
    }
}

/// Reads only /proc/PID/stat, which never waits for the process.
fn living(mut wanted: impl FnMut(&Process, &Stat) -> bool) -> Result<Vec<i32>> {
    let all = procfs::process::all_processes().map_err(Error::Processes)?;
    let mut found = Vec::new();
    // A process may exit meanwhile.
    for process in all.filter_map(ProcResult::ok) {
        if let Ok(stat) = process.stat()
            && stat.state != 'Z'
            && wanted(&process, &stat)
        {
            found.push(process.pid);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_time_grows_with_work() {
        let before = Usage::own().expect("read /proc");
        let mut value = 1_u64;
        while (Usage::own().expect("read /proc") - before).total() < Duration::from_millis(20) {
            value = std::hint::black_box(value.wrapping_mul(3));
        }
    }

    #[test]
    fn a_process_that_ended_counts_nothing() {
        let none = i32::MAX;
        assert!(Usage::of(none).is_err());
        assert_eq!(
            Usage::of_all(&[none]).expect("an exited process is no error"),
            Usage::default()
        );
    }

    #[test]
    fn a_child_is_a_descendant_and_found_by_its_argument() {
        let mut child = std::process::Command::new("sleep")
            .arg("86399")
            .spawn()
            .expect("start sleep");
        let pid = i32::try_from(child.id()).expect("a process number");
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let below = descendants(own);
        let named = with_argument("sleep", "86399");
        let sleeping = program_below(own, "sleep");
        child.kill().expect("kill sleep");
        child.wait().expect("reap sleep");
        assert!(below.expect("list processes").contains(&pid));
        assert!(named.expect("list processes").contains(&pid));
        let sleeping = sleeping.expect("list processes");
        assert!(sleeping.contains(&pid) && !sleeping.contains(&own));
        assert!(!descendants(own).expect("list processes").contains(&pid));
        assert!(
            !with_argument("sleep", "86399")
                .expect("list processes")
                .contains(&pid)
        );
    }
}
