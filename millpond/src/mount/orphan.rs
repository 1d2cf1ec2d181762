//! A server that lost its supervisor, which was killed.
//!
//! It keeps serving: readers do not notice. But it would not be restarted, so it logs an error, and does itself what a
//! supervisor does at the end of a mount: it exits when the directory is unmounted, on SIGTERM and on SIGINT, and
//! removes the run directory. `millpond unmount` and the next `millpond mount` at the directory stop it by SIGTERM
//! ([`end`]); open files that are completely cached stay readable through both.
//!
//! Why not a new supervisor immediately: the parent of the killed one (systemd, a shell) also starts the next one, and
//! a mount that restarts by itself would conflict with it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{PidfdFlags, Signal};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::run_directory::RunDirectory;

/// How long an orphan may take to exit after SIGTERM: the same as a supervisor's server.
const TERM_TIMEOUT: Duration = Duration::from_secs(20);

/// How long an orphan may take to exit after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Watch of a server on its supervisor.
#[derive(Debug)]
pub(super) struct SupervisorWatch {
    lost: CancellationToken,
}

impl SupervisorWatch {
    /// Watches the keeper's socket, which is the standard input of a server, on a thread that sleeps until the
    /// supervisor exits.
    ///
    /// # Errors
    /// If there is no such socket, or the thread cannot be started.
    pub(super) fn of_stdin() -> io::Result<Self> {
        let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
        let lost = CancellationToken::new();
        let watched = lost.clone();
        std::thread::Builder::new()
            .name("supervision".to_owned())
            .spawn(move || match hung_up(&socket) {
                Ok(()) => watched.cancel(),
                Err(error) => warn!(%error, "failed to watch the supervisor; its exit will go unnoticed"),
            })?;
        Ok(Self { lost })
    }

    /// Waits until the supervisor has exited.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

/// Sleeps until the other end of `socket` is closed.
fn hung_up(socket: &OwnedFd) -> io::Result<()> {
    loop {
        // The kernel always reports a hang-up. Messages are read by the keeper client.
        let mut polled = [PollFd::new(socket, PollFlags::empty())];
        match rustix::event::poll(&mut polled, None) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Stops the server of `run_dir` that lost its supervisor, if there is one. The caller has claimed the run directory, so
/// no supervisor starts another.
///
/// # Errors
/// If it does not exit.
pub(super) fn end(run_dir: &RunDirectory) -> Result<()> {
    let Some(pid) = run_dir.server() else {
        return Ok(());
    };
    let failed = || {
        format!(
            "failed to stop the server {}, which lost its supervisor",
            pid.as_raw_pid()
        )
    };
    let process = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error).with_context(failed),
    };
    // Between reading the PID and opening it, the server may have exited and the PID been reused.
    if run_dir.server() != Some(pid) {
        return Ok(());
    }
    for (signal, timeout) in [(Signal::TERM, TERM_TIMEOUT), (Signal::KILL, KILL_TIMEOUT)] {
        match rustix::process::pidfd_send_signal(&process, signal) {
            Ok(()) => {}
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            Err(error) => return Err(error).with_context(failed),
        }
        if exits_within(&process, timeout).with_context(failed)? {
            return Ok(());
        }
        warn!(
            pid = pid.as_raw_pid(),
            ?signal,
            "a server that lost its supervisor did not exit in time"
        );
    }
    bail!("{}: it did not exit after SIGKILL", failed())
}

fn exits_within(process: &OwnedFd, timeout: Duration) -> io::Result<bool> {
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: 0,
    };
    let mut polled = [PollFd::new(process, PollFlags::IN)];
    Ok(rustix::event::poll(&mut polled, Some(&timeout))? > 0)
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn a_supervisor_is_lost_when_its_end_is_closed_and_not_when_it_sends() {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        rustix::io::write(&theirs, b"a response").unwrap();
        // A message is no event for the watcher: its poll would return immediately.
        let mut polled = [PollFd::new(&ours, PollFlags::empty())];
        let immediately = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        assert_eq!(rustix::event::poll(&mut polled, Some(&immediately)).unwrap(), 0);
        drop(theirs);
        hung_up(&ours).unwrap();
    }

    #[test]
    fn there_is_nothing_to_stop_without_a_server() {
        let root = tempfile::tempdir().unwrap();
        end(&RunDirectory::at(root.path())).unwrap();
    }
}
