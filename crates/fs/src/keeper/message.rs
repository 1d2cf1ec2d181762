//! The messages between a server and its keeper.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::peer::{self, MessageError};

/// Raised when a message changes its meaning. Either side refuses another version.
const VERSION: u32 = 1;

/// Errors between keeper and server.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The peer has exited.
    #[error("the keeper's connection is closed")]
    Closed,
    /// The keeper refused the request.
    #[error("the keeper refused: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// The received bytes are no message of this version.
    #[error("invalid message between keeper and server: {reason}")]
    Message {
        /// What is wrong with it.
        reason: String,
    },
    /// The socket failed.
    #[error("failed to communicate with the keeper")]
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

/// A server's request. Variants keep their names on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// Holds this mount, whose device and table are attached.
    #[serde(rename = "Give")]
    Register {
        mount: String,
        connection: u32,
        note: String,
    },
    /// Takes this mount over, once no other server serves it.
    #[serde(rename = "Take")]
    TakeOver { mount: String },
    /// The mount is unmounted: its descriptors are closed.
    #[serde(rename = "Drop")]
    Unregister { mount: String },
    /// The server serves from now on.
    Ready,
    /// The server is about to exit on purpose.
    Stopping,
}

/// The keeper's response. Variants keep their names on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Response {
    Done,
    /// The device and the table are attached.
    #[serde(rename = "Kept")]
    Mount {
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
