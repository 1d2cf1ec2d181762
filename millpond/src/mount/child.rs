//! A server as its supervisor sees it: a child that reports through its output and is told things by signals.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use millpond_fs::keeper::KeeperServer;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tracing::warn;

use super::run_directory::Place;

/// How long a server may take to end in order.
const SERVER_STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// A server that was started.
pub(super) struct ServerProcess {
    child: Child,
    /// `None`: it will say nothing more.
    reports: Option<Lines<BufReader<ChildStdout>>>,
}

/// What a server did.
pub(super) enum ServerEvent {
    /// It said a line.
    Said(String),
    /// It will say nothing more.
    Silent,
    /// It is gone.
    Ended(io::Result<ExitStatus>),
}

impl ServerProcess {
    /// Starts a server of the mount at `place`, with the holder's socket as its standard input.
    pub(super) fn start(
        binary: &Path,
        place: &Place,
        predecessors: u64,
        holder: &KeeperServer,
    ) -> io::Result<Self> {
        let mut child = Command::new(binary)
            .arg0("millpond")
            .arg("serve")
            .arg(place.run())
            .arg("--predecessors")
            .arg(predecessors.to_string())
            .stdin(Stdio::from(holder.socket()?))
            .stdout(Stdio::piped())
            .current_dir("/")
            .spawn()?;
        let reports = child.stdout.take().map(|output| BufReader::new(output).lines());
        Ok(Self { child, reports })
    }

    /// Waits for what it does next.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped.
    pub(super) async fn next(&mut self) -> ServerEvent {
        let Self { child, reports } = self;
        tokio::select! {
            // What a server said comes before its end.
            biased;
            line = next_line(reports.as_mut()) => match line {
                Some(line) => ServerEvent::Said(line),
                None => {
                    *reports = None;
                    ServerEvent::Silent
                }
            },
            ended = child.wait() => ServerEvent::Ended(ended),
        }
    }

    /// Asks it to leave the mount to the next one.
    pub(super) fn ask_to_leave(&self) -> io::Result<()> {
        self.signal(Signal::USR1)
    }

    /// Kills it. Its end is told by [`Self::next`].
    pub(super) fn kill(&mut self) {
        if let Err(error) = self.child.start_kill() {
            warn!(%error, "failed to kill the server");
        }
    }

    /// Ends it: in order, if it can.
    pub(super) async fn stop(&mut self) {
        if let Err(error) = self.signal(Signal::TERM) {
            warn!(%error, "failed to signal the server");
        }
        if tokio::time::timeout(SERVER_STOP_TIMEOUT, self.child.wait())
            .await
            .is_err()
        {
            warn!("the server does not end: it is killed");
            if let Err(error) = self.child.kill().await {
                warn!(%error, "failed to kill the server");
            }
        }
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }
}

async fn next_line(lines: Option<&mut Lines<BufReader<ChildStdout>>>) -> Option<String> {
    match lines {
        Some(lines) => lines.next_line().await.unwrap_or(None),
        None => std::future::pending().await,
    }
}
