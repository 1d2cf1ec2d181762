//! Commands to the supervisor: one JSON line over its socket, and one back when the command is done.
//!
//! Only commands that must work without a server; all others go to the server's `control` socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags};
use rustix::process::PidfdFlags;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tracing::info;

use super::run_directory::RunDirectory;

/// Longest line of a command or a result.
const MAX_LINE_BYTES: u64 = 64 << 10;

/// How long a client may take to send its command, or to read the result.
const CLIENT_IO_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest wait for a result: an upgrade that fails and falls back takes two starts of a server.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(300);

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SupervisorCommand {
    /// Unmounts and ends the supervisor.
    Unmount {
        /// Whether a view in use is detached.
        force: bool,
    },
    /// Replaces the server by one of this program.
    Upgrade {
        /// Path of the program.
        binary: PathBuf,
    },
}

/// Result of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CommandResult {
    /// Done; after an unmount the supervisor exits now.
    Done,
    /// Not done; nothing has changed.
    Refused {
        /// Why.
        reason: String,
    },
}

/// Sends a command to the supervisor of `run_dir` and waits until it is done.
///
/// # Errors
/// If the supervisor cannot be reached or refuses.
pub(crate) fn send(run_dir: &RunDirectory, command: &SupervisorCommand) -> Result<()> {
    let socket = run_dir.orders();
    let failed = || format!("failed to reach the mount's supervisor at {}", socket.display());
    let mut stream = UnixStream::connect(&socket).with_context(failed)?;
    stream
        .set_read_timeout(Some(COMMAND_TIMEOUT))
        .with_context(failed)?;
    let mut line = serde_json::to_vec(command)?;
    line.push(b'\n');
    stream.write_all(&line).with_context(failed)?;
    let mut response = String::new();
    BufReader::new(stream.take(MAX_LINE_BYTES))
        .read_line(&mut response)
        .with_context(failed)?;
    if response.is_empty() {
        bail!("the mount's supervisor exited before it responded");
    }
    match serde_json::from_str(&response).with_context(failed)? {
        CommandResult::Done => Ok(()),
        CommandResult::Refused { reason } => bail!("{reason}"),
    }
}

/// Reads a client's command: the supervisor's side of [`send`].
///
/// # Errors
/// If the client sends no valid command in time.
pub(super) async fn receive(client: &mut tokio::net::UnixStream) -> Result<SupervisorCommand> {
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(client.take(MAX_LINE_BYTES));
    tokio::time::timeout(CLIENT_IO_TIMEOUT, reader.read_line(&mut line))
        .await
        .with_context(|| format!("no command within {CLIENT_IO_TIMEOUT:?}"))?
        .context("failed to read a command")?;
    serde_json::from_str(&line).context("invalid command")
}

/// Sends the result to the client; a client that has disconnected is ignored.
pub(super) async fn reply(mut client: tokio::net::UnixStream, result: &CommandResult) {
    let mut line = serde_json::to_vec(result).unwrap_or_default();
    line.push(b'\n');
    let write = client.write_all(&line);
    if !matches!(tokio::time::timeout(CLIENT_IO_TIMEOUT, write).await, Ok(Ok(()))) {
        info!("a client disconnected before its result was sent");
    }
}

/// Watch on the exit of a process.
#[derive(Debug)]
pub(crate) struct ProcessWatch(Option<rustix::fd::OwnedFd>);

impl ProcessWatch {
    /// Watches the supervisor of `run_dir`, if one is running.
    pub(crate) fn supervisor(run_dir: &RunDirectory) -> Self {
        let opened = run_dir
            .supervisor()
            .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
        Self(opened)
    }

    /// Waits until the process has exited, at most [`COMMAND_TIMEOUT`].
    pub(crate) fn wait(&self) -> Result<()> {
        let Some(process) = &self.0 else {
            return Ok(());
        };
        let mut polled = [PollFd::new(process, PollFlags::IN)];
        let timeout = rustix::event::Timespec {
            tv_sec: i64::try_from(COMMAND_TIMEOUT.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: 0,
        };
        match rustix::event::poll(&mut polled, Some(&timeout)) {
            Ok(0) => bail!("the mount's supervisor did not exit in time"),
            Ok(_) => Ok(()),
            Err(error) => Err(error).context("failed to wait for the mount's supervisor"),
        }
    }
}
