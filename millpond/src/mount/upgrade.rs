//! An upgrade under way: the old server leaves, the new program's server comes up, or the old program's again.
//!
//! Pure decisions, but for the client who is told how it went. The supervisor starts and kills what it says.

use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::Sleep;
use tracing::{error, warn};

use super::supervisor_command::{CommandResult, answer};

/// How long each step of an upgrade may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// An upgrade under way.
pub(super) struct Upgrade {
    client: UnixStream,
    /// The program that does not serve: first the new one, then the old one.
    other: PathBuf,
    phase: Phase,
    deadline: Pin<Box<Sleep>>,
}

enum Phase {
    /// The old server was asked to leave.
    Leaving,
    /// The new one starts; what it said when it failed.
    Starting(Option<String>),
    /// The old program starts again, for this reason.
    Returning(String),
}

/// What becomes of an upgrade whose server ended.
pub(super) enum AfterEnd {
    /// Start the next one now, whose program was put in place.
    Start,
    /// It is as without an upgrade.
    AsEver,
}

impl Upgrade {
    /// Begins one to `binary`, of which `client` wants to know the end. The server was asked to leave.
    pub(super) fn begin(client: UnixStream, binary: PathBuf) -> Self {
        Self {
            client,
            other: binary,
            phase: Phase::Leaving,
            deadline: Box::pin(tokio::time::sleep(STEP_TIMEOUT)),
        }
    }

    /// Waits until the present step took too long.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped.
    pub(super) async fn late(&mut self) {
        self.deadline.as_mut().await;
    }

    /// Takes in why the server that starts failed.
    pub(super) fn failed(&mut self, reason: &str) {
        if let Phase::Starting(said) = &mut self.phase {
            *said = Some(reason.to_owned());
        }
    }

    /// The server ended. `binary` is the program of the next one.
    pub(super) fn server_ended(&mut self, how: &str, binary: &mut PathBuf) -> AfterEnd {
        match &mut self.phase {
            Phase::Leaving => {
                self.phase = Phase::Starting(None);
                std::mem::swap(binary, &mut self.other);
                AfterEnd::Start
            }
            Phase::Starting(said) => {
                let reason = said.take().unwrap_or_else(|| format!("it ended ({how})"));
                self.go_back(reason, binary);
                AfterEnd::Start
            }
            Phase::Returning(_) => AfterEnd::AsEver,
        }
    }

    /// The program of the next server cannot be run; whether another was put in its place.
    pub(super) fn cannot_be_run(&mut self, error: &std::io::Error, binary: &mut PathBuf) -> bool {
        let starting = matches!(self.phase, Phase::Starting(_));
        if starting {
            self.go_back(format!("it cannot be run: {error}"), binary);
        }
        starting
    }

    /// A server is ready. What is left of the upgrade: nothing, unless it was the one that is to leave.
    pub(super) async fn server_is_ready(self) -> Option<Self> {
        match self.phase {
            Phase::Leaving => return Some(self),
            Phase::Starting(_) => answer(self.client, &CommandResult::Done).await,
            Phase::Returning(reason) => {
                let reason = format!("the new program did not come up, the old one serves again: {reason}");
                answer(self.client, &CommandResult::Refused { reason }).await;
            }
        }
        None
    }

    /// A step took too long. `None`: the upgrade is over; else the server of the step is to be killed.
    pub(super) async fn overdue(mut self) -> Option<Self> {
        match &mut self.phase {
            Phase::Leaving => warn!("the server does not leave: it is killed"),
            Phase::Starting(said) => *said = Some("it was not ready in time".to_owned()),
            Phase::Returning(reason) => {
                let reason = format!("neither the new program nor the old one came up: {reason}");
                answer(self.client, &CommandResult::Refused { reason }).await;
                return None;
            }
        }
        self.deadline = Box::pin(tokio::time::sleep(STEP_TIMEOUT));
        Some(self)
    }

    fn go_back(&mut self, reason: String, binary: &mut PathBuf) {
        error!(reason, "the new program does not come up: back to the old one");
        std::mem::swap(binary, &mut self.other);
        self.phase = Phase::Returning(reason);
    }
}
