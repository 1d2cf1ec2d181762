//! What a server and its keeper say to each other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::peer::{self, MessageError};

/// Raised when a message changes its meaning. Either side refuses another version.
const VERSION: u32 = 1;

/// Why keeper and server do not understand each other.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The other side is gone.
    #[error("the keeper's connection is closed")]
    Closed,
    /// The keeper did not do what it was asked.
    #[error("the keeper refused: {reason}")]
    Refused {
        /// Its words.
        reason: String,
    },
    /// What came is no message of this version.
    #[error("failed to understand a message between keeper and server: {reason}")]
    Message {
        /// What is wrong with it.
        reason: String,
    },
    /// The socket failed.
    #[error("failed to talk to the keeper")]
    Io(#[from] io::Error),
}

impl From<MessageError> for KeeperError {
    fn from(error: MessageError) -> Self {
        match error {
            MessageError::Closed => Self::Closed,
            MessageError::Message { reason } => Self::Message { reason },
            MessageError::Io(error) => Self::Io(error),
        }
    }
}

/// What a server asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// Keep this mount; its device and its table come along.
    Give {
        mount: String,
        connection: u32,
        note: String,
    },
    /// Hand over what is kept of this mount, as soon as nobody else serves it.
    Take { mount: String },
    /// The mount is unmounted: let go of it.
    Drop { mount: String },
    /// The server serves from now on.
    Ready,
    /// The server is about to end on purpose.
    Stopping,
}

/// What the keeper answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    Done,
    /// The device and the table come along.
    Kept {
        note: String,
    },
    Nothing,
    Refused {
        reason: String,
    },
}

/// Sends a message with descriptors.
pub(super) fn send<T: Serialize>(
    socket: impl AsFd,
    body: &T,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), KeeperError> {
    Ok(peer::send(socket, VERSION, body, descriptors)?)
}

/// Receives a message and its descriptors.
pub(super) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> Result<(T, Vec<OwnedFd>), KeeperError> {
    Ok(peer::receive(socket, VERSION)?)
}
