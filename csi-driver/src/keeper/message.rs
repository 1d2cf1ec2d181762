//! What a server and its keeper say to each other.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Raised when a message changes its meaning. Either side refuses another version.
const VERSION: u32 = 1;
/// Far more than any note; a longer message is refused.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// The device and the table of opens.
const DESCRIPTORS: usize = 2;

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

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    version: u32,
    body: T,
}

/// Sends a message with descriptors.
pub(super) fn send<T: Serialize>(
    socket: impl AsFd,
    body: &T,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), KeeperError> {
    let bytes = serde_json::to_vec(&Envelope {
        version: VERSION,
        body,
    })
    .map_err(unreadable)?;
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(KeeperError::Message {
            reason: format!("{} bytes are too many", bytes.len()),
        });
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(KeeperError::Message {
            reason: "too many descriptors".to_owned(),
        });
    }
    let sent = retry(|| {
        rustix::net::sendmsg(
            &socket,
            &[IoSlice::new(&bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
    });
    match sent {
        Ok(_) => Ok(()),
        Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Err(KeeperError::Closed),
        Err(error) => Err(KeeperError::Io(error.into())),
    }
}

/// Receives a message and its descriptors.
pub(super) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> Result<(T, Vec<OwnedFd>), KeeperError> {
    let mut bytes = vec![0; MAX_MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = retry(|| {
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        rustix::net::recvmsg(&socket, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC)
    });
    let received = match received {
        Ok(received) => received,
        Err(rustix::io::Errno::CONNRESET) => return Err(KeeperError::Closed),
        Err(error) => return Err(KeeperError::Io(error.into())),
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    if received.bytes == 0 {
        return Err(KeeperError::Closed);
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(KeeperError::Message {
            reason: "it is too long".to_owned(),
        });
    }
    let envelope: Envelope<serde_json::Value> =
        serde_json::from_slice(bytes.get(..received.bytes).unwrap_or_default()).map_err(unreadable)?;
    if envelope.version != VERSION {
        let reason = format!("version {} instead of {VERSION}", envelope.version);
        return Err(KeeperError::Message { reason });
    }
    Ok((
        serde_json::from_value(envelope.body).map_err(unreadable)?,
        descriptors,
    ))
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            result => return result,
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err gives it")]
fn unreadable(error: serde_json::Error) -> KeeperError {
    KeeperError::Message {
        reason: error.to_string(),
    }
}
