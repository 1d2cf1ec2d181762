//! What the supervisor is told to do: one JSON line over its socket, and one back when it is done.
//!
//! These are the orders that must also work while no server does. Everything else goes to the server's `control`.

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

use super::run_directory::Place;

/// Longest line of an order or an answer.
const MAX_LINE_BYTES: u64 = 64 << 10;

/// How long a client may take to say its order, or to take the answer.
const CLIENT_IO_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest wait for an answer: an upgrade that fails and falls back takes two starts of a server.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(300);

/// One order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SupervisorCommand {
    /// Take the mount away.
    Unmount {
        /// Even while it is in use.
        force: bool,
    },
    /// Let a server of this program take over.
    Upgrade {
        /// The program.
        binary: PathBuf,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CommandResult {
    /// Done; an unmounting supervisor ends now.
    Done,
    /// It could not be done, and everything is as before.
    Refused {
        /// Why.
        reason: String,
    },
}

/// Gives an order to the supervisor of `place` and waits until it is done.
///
/// # Errors
/// Where the supervisor cannot be reached or refuses.
pub(crate) fn give(place: &Place, order: &SupervisorCommand) -> Result<()> {
    let socket = place.orders();
    let failed = || format!("failed to reach the mount's supervisor at {}", socket.display());
    let mut stream = UnixStream::connect(&socket).with_context(failed)?;
    stream
        .set_read_timeout(Some(COMMAND_TIMEOUT))
        .with_context(failed)?;
    let mut line = serde_json::to_vec(order)?;
    line.push(b'\n');
    stream.write_all(&line).with_context(failed)?;
    let mut answer = String::new();
    BufReader::new(stream.take(MAX_LINE_BYTES))
        .read_line(&mut answer)
        .with_context(failed)?;
    if answer.is_empty() {
        bail!("the mount's supervisor ended before it answered");
    }
    match serde_json::from_str(&answer).with_context(failed)? {
        CommandResult::Done => Ok(()),
        CommandResult::Refused { reason } => bail!("{reason}"),
    }
}

/// Reads a client's order: the supervisor's side of [`give`].
///
/// # Errors
/// With what the client did wrong.
pub(super) async fn receive(client: &mut tokio::net::UnixStream) -> Result<SupervisorCommand> {
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(client.take(MAX_LINE_BYTES));
    tokio::time::timeout(CLIENT_IO_TIMEOUT, reader.read_line(&mut line))
        .await
        .context("no order came in time")?
        .context("failed to read an order")?;
    serde_json::from_str(&line).context("this is no order")
}

/// Tells the client what came of its order. One that is gone does not wait for the answer.
pub(super) async fn answer(mut client: tokio::net::UnixStream, outcome: &CommandResult) {
    let mut line = serde_json::to_vec(outcome).unwrap_or_default();
    line.push(b'\n');
    let write = client.write_all(&line);
    if !matches!(tokio::time::timeout(CLIENT_IO_TIMEOUT, write).await, Ok(Ok(()))) {
        info!("a client did not wait for its answer");
    }
}

/// A process whose end can be waited for.
#[derive(Debug)]
pub(crate) struct ProcessWatch(Option<rustix::fd::OwnedFd>);

impl ProcessWatch {
    /// Watches the supervisor of `place`, if it has one.
    pub(crate) fn supervisor(place: &Place) -> Self {
        let opened = place
            .supervisor()
            .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
        Self(opened)
    }

    /// Waits until it is gone, at most as long as an order may take.
    pub(crate) fn wait(&self) -> Result<()> {
        let Some(process) = &self.0 else {
            return Ok(());
        };
        let mut polled = [PollFd::new(process, PollFlags::IN)];
        let patience = rustix::event::Timespec {
            tv_sec: i64::try_from(COMMAND_TIMEOUT.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: 0,
        };
        match rustix::event::poll(&mut polled, Some(&patience)) {
            Ok(0) => bail!("the mount's supervisor does not end"),
            Ok(_) => Ok(()),
            Err(error) => Err(error).context("failed to wait for the mount's supervisor"),
        }
    }
}
