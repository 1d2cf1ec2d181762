//! A server whose supervisor was killed, and nothing else.
//!
//! It serves on: nobody who reads shall notice. But nobody would start another one, so it says so, loudly, and it does
//! itself what a supervisor does at the end of a mount: it ends when the directory is unmounted, on SIGTERM and on
//! SIGINT, and removes the run directory. `millpond unmount` and the next `millpond mount` at the directory end it by
//! that signal ([`end`]); open files that are cached whole read on through both.
//!
//! Why not a new supervisor at once: whoever started the one that was killed (systemd, a shell) also starts the next
//! one, and a mount that comes back by itself would be in its way.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{PidfdFlags, Signal};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::run_directory::Place;

/// How long an orphan may take to end in order: as long as a supervisor gives its server.
const TERM_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a killed one may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// The server's view of its supervisor.
#[derive(Debug)]
pub(super) struct SupervisorWatch {
    lost: CancellationToken,
}

impl SupervisorWatch {
    /// Watches the keeper's socket, which is the standard input of a server, on a thread that sleeps until the
    /// supervisor is gone: as long as the process lives, mostly.
    ///
    /// # Errors
    /// Where there is no such socket or no thread.
    pub(super) fn of_stdin() -> io::Result<Self> {
        let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
        let lost = CancellationToken::new();
        let tell = lost.clone();
        std::thread::Builder::new()
            .name("supervision".to_owned())
            .spawn(move || match hung_up(&socket) {
                Ok(()) => tell.cancel(),
                Err(error) => warn!(%error, "failed to watch the supervisor: its end would not be noticed"),
            })?;
        Ok(Self { lost })
    }

    /// Waits until the supervisor is gone.
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
        // A hang-up is always told. What there is to read is the business of others.
        let mut polled = [PollFd::new(socket, PollFlags::empty())];
        match rustix::event::poll(&mut polled, None) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Ends the server at `place` that lost its supervisor, if there is one. The caller has claimed the place, so no
/// supervisor starts another.
///
/// # Errors
/// Where it does not end.
pub(super) fn end(place: &Place) -> Result<()> {
    let Some(pid) = place.server() else {
        return Ok(());
    };
    let failed = || {
        format!(
            "failed to end the server {}, which lost its supervisor",
            pid.as_raw_pid()
        )
    };
    let process = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error).with_context(failed),
    };
    // Between reading its number and opening it, it may have ended and another have its number.
    if place.server() != Some(pid) {
        return Ok(());
    }
    for (signal, patience) in [(Signal::TERM, TERM_TIMEOUT), (Signal::KILL, KILL_TIMEOUT)] {
        match rustix::process::pidfd_send_signal(&process, signal) {
            Ok(()) => {}
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            Err(error) => return Err(error).with_context(failed),
        }
        if ends_within(&process, patience).with_context(failed)? {
            return Ok(());
        }
        warn!(
            pid = pid.as_raw_pid(),
            ?signal,
            "a server that lost its supervisor does not end"
        );
    }
    bail!("{}: it does not even end by SIGKILL", failed())
}

fn ends_within(process: &OwnedFd, patience: Duration) -> io::Result<bool> {
    let patience = Timespec {
        tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: 0,
    };
    let mut polled = [PollFd::new(process, PollFlags::IN)];
    Ok(rustix::event::poll(&mut polled, Some(&patience))? > 0)
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn a_supervisor_is_lost_when_its_end_is_closed_and_not_when_it_speaks() {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        rustix::io::write(&theirs, b"an answer").unwrap();
        // What was said is no event for the watcher: its poll would return at once.
        let mut polled = [PollFd::new(&ours, PollFlags::empty())];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        assert_eq!(rustix::event::poll(&mut polled, Some(&at_once)).unwrap(), 0);
        drop(theirs);
        hung_up(&ours).unwrap();
    }

    #[test]
    fn there_is_nothing_to_end_where_nobody_serves() {
        let root = tempfile::tempdir().unwrap();
        end(&Place::at(root.path())).unwrap();
    }
}
