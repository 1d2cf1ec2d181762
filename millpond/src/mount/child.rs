//! A server as a child of its supervisor: it reports through its output and is controlled by signals.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use millpond_fs::keeper::KeeperServer;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tracing::warn;

use super::run_directory::RunDirectory;

/// How long a server may take to exit after SIGTERM before it is killed.
const SERVER_STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// A started server.
pub(super) struct ServerProcess {
    child: Child,
    /// `None`: the server has closed its output.
    reports: Option<Lines<BufReader<ChildStdout>>>,
}

/// Event of a server.
pub(super) enum ServerEvent {
    /// It wrote a line.
    Line(String),
    /// It closed its output.
    OutputClosed,
    /// It exited.
    Exited(io::Result<ExitStatus>),
}

impl ServerProcess {
    /// Starts a server of the mount at `run_dir`, with a keeper socket as its standard input.
    pub(super) fn start(
        binary: &Path,
        run_dir: &RunDirectory,
        predecessors: u64,
        keeper: &KeeperServer,
    ) -> io::Result<Self> {
        let mut child = Command::new(binary)
            .arg0("millpond")
            .arg("serve")
            .arg(run_dir.path())
            .arg("--predecessors")
            .arg(predecessors.to_string())
            .stdin(Stdio::from(keeper.socket()?))
            .stdout(Stdio::piped())
            .current_dir("/")
            .spawn()?;
        let reports = child.stdout.take().map(|output| BufReader::new(output).lines());
        Ok(Self { child, reports })
    }

    /// Waits for the server's next event.
    ///
    /// # Cancel safety
    /// No event is lost when it is dropped.
    pub(super) async fn next(&mut self) -> ServerEvent {
        let Self { child, reports } = self;
        tokio::select! {
            // Lines that a server wrote come before its exit.
            biased;
            line = next_line(reports.as_mut()) => match line {
                Some(line) => ServerEvent::Line(line),
                None => {
                    *reports = None;
                    ServerEvent::OutputClosed
                }
            },
            status = child.wait() => ServerEvent::Exited(status),
        }
    }

    /// Requests the server to hand over the mount to the next server.
    pub(super) fn request_handover(&self) -> io::Result<()> {
        self.signal(Signal::USR1)
    }

    /// Kills the server. [`Self::next`] returns its exit.
    pub(super) fn kill(&mut self) {
        if let Err(error) = self.child.start_kill() {
            warn!(%error, "failed to kill the server");
        }
    }

    /// Stops the server by SIGTERM, or by SIGKILL after [`SERVER_STOP_TIMEOUT`].
    pub(super) async fn stop(&mut self) {
        if let Err(error) = self.signal(Signal::TERM) {
            warn!(%error, "failed to signal the server");
        }
        if tokio::time::timeout(SERVER_STOP_TIMEOUT, self.child.wait())
            .await
            .is_err()
        {
            warn!(timeout = ?SERVER_STOP_TIMEOUT, "the server did not exit; killing it");
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
