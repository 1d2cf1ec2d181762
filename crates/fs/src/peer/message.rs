//! Messages with descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Far more than any note or paths; a longer message is rejected.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// The most descriptors of a message: a device and a table of opens.
const DESCRIPTORS: usize = 2;

/// Errors of sending and receiving.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    /// The peer has closed the connection.
    #[error("the connection is closed")]
    Closed,
    /// The bytes are no message of this version.
    #[error("{reason}")]
    Message {
        /// What is wrong with it.
        reason: String,
    },
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    version: u32,
    body: T,
}

/// Sends a message with descriptors.
pub(crate) fn send<T: Serialize>(
    socket: impl AsFd,
    version: u32,
    body: &T,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), MessageError> {
    let bytes = serde_json::to_vec(&Envelope { version, body }).map_err(unreadable)?;
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(MessageError::Message {
            reason: format!("{} bytes exceed the limit", bytes.len()),
        });
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(MessageError::Message {
            reason: "too many descriptors".to_owned(),
        });
    }
    let sent = retry_on_intr(|| {
        rustix::net::sendmsg(
            &socket,
            &[IoSlice::new(&bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
    });
    match sent {
        Ok(_) => Ok(()),
        Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Err(MessageError::Closed),
        Err(error) => Err(MessageError::Io(error.into())),
    }
}

/// Receives a message of that version and its descriptors.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
    version: u32,
) -> Result<(T, Vec<OwnedFd>), MessageError> {
    let mut bytes = vec![0; MAX_MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = retry_on_intr(|| {
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        rustix::net::recvmsg(&socket, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC)
    });
    let received = match received {
        Ok(received) => received,
        Err(rustix::io::Errno::CONNRESET) => return Err(MessageError::Closed),
        Err(error) => return Err(MessageError::Io(error.into())),
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    if received.bytes == 0 {
        return Err(MessageError::Closed);
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(MessageError::Message {
            reason: "the message is too long".to_owned(),
        });
    }
    let envelope: Envelope<serde_json::Value> =
        serde_json::from_slice(bytes.get(..received.bytes).unwrap_or_default()).map_err(unreadable)?;
    if envelope.version != version {
        let reason = format!("version {} instead of {version}", envelope.version);
        return Err(MessageError::Message { reason });
    }
    Ok((
        serde_json::from_value(envelope.body).map_err(unreadable)?,
        descriptors,
    ))
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err gives it")]
fn unreadable(error: serde_json::Error) -> MessageError {
    MessageError::Message {
        reason: error.to_string(),
    }
}
