//! State of an upgrade: the old server hands over, the new program's server starts, or the old program's again.
//!
//! Pure decisions, except for the result sent to the client. The supervisor starts and kills servers accordingly.

use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::Sleep;
use tracing::{error, warn};

use super::supervisor_command::{CommandResult, reply};

/// How long each step of an upgrade may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// An upgrade in progress.
pub(super) struct Upgrade {
    client: UnixStream,
    /// The program that is not in use: first the new one, then the old one.
    other: PathBuf,
    phase: Phase,
    deadline: Pin<Box<Sleep>>,
}

enum Phase {
    /// The old server was requested to hand over.
    HandingOver,
    /// The new server starts; the reason it reported when it failed.
    Starting(Option<String>),
    /// The old program starts again, for this reason.
    FallingBack(String),
}

/// What follows when a server exits during an upgrade.
pub(super) enum AfterExit {
    /// The next server is started now; its program is set.
    Start,
    /// The same as without an upgrade.
    Default,
}

impl Upgrade {
    /// Starts an upgrade to `binary`, whose result is sent to `client`. The server was requested to hand over.
    pub(super) fn start(client: UnixStream, binary: PathBuf) -> Self {
        Self {
            client,
            other: binary,
            phase: Phase::HandingOver,
            deadline: Box::pin(tokio::time::sleep(STEP_TIMEOUT)),
        }
    }

    /// Waits until the current step has timed out.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub(super) async fn late(&mut self) {
        self.deadline.as_mut().await;
    }

    /// Records why the starting server failed.
    pub(super) fn failed(&mut self, reason: &str) {
        if let Phase::Starting(reported) = &mut self.phase {
            *reported = Some(reason.to_owned());
        }
    }

    /// Handles the server's exit. `binary` is the program of the next server.
    pub(super) fn server_exited(&mut self, how: &str, binary: &mut PathBuf) -> AfterExit {
        match &mut self.phase {
            Phase::HandingOver => {
                self.phase = Phase::Starting(None);
                std::mem::swap(binary, &mut self.other);
                AfterExit::Start
            }
            Phase::Starting(reported) => {
                let reason = reported.take().unwrap_or_else(|| format!("it exited ({how})"));
                self.fall_back(reason, binary);
                AfterExit::Start
            }
            Phase::FallingBack(_) => AfterExit::Default,
        }
    }

    /// Handles a program that cannot be executed; returns whether `binary` was set to another one.
    pub(super) fn cannot_be_run(&mut self, error: &std::io::Error, binary: &mut PathBuf) -> bool {
        let starting = matches!(self.phase, Phase::Starting(_));
        if starting {
            self.fall_back(format!("it cannot be executed: {error}"), binary);
        }
        starting
    }

    /// Handles a server that is ready. Returns the upgrade if that server is the one to hand over, else `None`.
    pub(super) async fn server_is_ready(self) -> Option<Self> {
        match self.phase {
            Phase::HandingOver => return Some(self),
            Phase::Starting(_) => reply(self.client, &CommandResult::Done).await,
            Phase::FallingBack(reason) => {
                let reason = format!("the new program failed to start, the old one serves again: {reason}");
                reply(self.client, &CommandResult::Refused { reason }).await;
            }
        }
        None
    }

    /// Handles a timed-out step. `None`: the upgrade has ended; else the caller kills the step's server.
    pub(super) async fn overdue(mut self) -> Option<Self> {
        match &mut self.phase {
            Phase::HandingOver => {
                warn!(timeout = ?STEP_TIMEOUT, "the server did not hand over in time; killing it")
            }
            Phase::Starting(reported) => *reported = Some("it was not ready in time".to_owned()),
            Phase::FallingBack(reason) => {
                let reason = format!("both the new and the old program failed to start: {reason}");
                reply(self.client, &CommandResult::Refused { reason }).await;
                return None;
            }
        }
        self.deadline = Box::pin(tokio::time::sleep(STEP_TIMEOUT));
        Some(self)
    }

    fn fall_back(&mut self, reason: String, binary: &mut PathBuf) {
        error!(reason, "the new program failed to start; starting the old one");
        std::mem::swap(binary, &mut self.other);
        self.phase = Phase::FallingBack(reason);
    }
}
