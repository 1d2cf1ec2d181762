//! The server's side of the keeper's protocol.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use parking_lot::Mutex;

use super::message::{KeeperError, Request, Response, receive, send};
use crate::peer;

/// A server's connection to its keeper. The keeper takes its end for the server's exit.
#[derive(Debug)]
pub struct KeeperClient {
    /// One request at a time. The lock is held for the round trip, which is why this is not for the read path.
    /// `None`: the keeper is disconnected.
    socket: Mutex<Option<OwnedFd>>,
    on_disconnect: OnDisconnect,
}

/// The consequence of the keeper's disconnection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnDisconnect {
    /// The keeper has exited for good, and this server must exit.
    Fatal,
    /// The keeper restarts, and everything is registered again.
    Reconnect,
}

/// A mount that the keeper held.
#[derive(Debug)]
pub struct RecoveredMount {
    /// The `/dev/fuse` descriptor.
    pub device: OwnedFd,
    /// The shared memory with the open files.
    pub table: OwnedFd,
    /// The note of the previous server.
    pub note: String,
}

impl KeeperClient {
    /// A client over a socket of [`super::KeeperServer::socket`].
    pub const fn new(socket: OwnedFd) -> Self {
        Self {
            socket: Mutex::new(Some(socket)),
            on_disconnect: OnDisconnect::Fatal,
        }
    }

    /// A client of a keeper that may restart, not connected yet: see [`Self::connect`]. While disconnected, requests
    /// succeed without effect, and no mount can be taken over.
    pub const fn reconnecting() -> Self {
        Self {
            socket: Mutex::new(None),
            on_disconnect: OnDisconnect::Reconnect,
        }
    }

    /// Connects to the keeper that listens at `path`. The resulting descriptor becomes readable when that keeper exits.
    /// Everything has to be registered with it again.
    ///
    /// # Errors
    /// No keeper listens there.
    pub fn connect(&self, path: &Path) -> Result<OwnedFd, KeeperError> {
        let socket = peer::connect(path)?;
        let watched = socket.try_clone()?;
        *self.socket.lock() = Some(socket);
        Ok(watched)
    }

    /// Records that the keeper has disconnected.
    pub fn disconnected(&self) {
        self.socket.lock().take();
    }

    /// A client over the standard input, where a supervisor puts the socket of the server that it starts.
    ///
    /// # Errors
    /// The standard input is not open.
    pub fn from_stdin() -> Result<Self, KeeperError> {
        Ok(Self::new(std::io::stdin().as_fd().try_clone_to_owned()?))
    }

    /// Registers a mount: its descriptors outlive this process.
    ///
    /// # Errors
    /// The keeper does not hold it.
    pub fn register(
        &self,
        mount: &str,
        connection: u32,
        note: &str,
        device: BorrowedFd<'_>,
        table: BorrowedFd<'_>,
    ) -> Result<(), KeeperError> {
        let request = Request::Register {
            mount: mount.to_owned(),
            connection,
            note: note.to_owned(),
        };
        done(self.request(&request, &[device, table])?.0)
    }

    /// Takes a mount over. Waits until the server that holds it has disconnected. `None`: the keeper holds no such mount.
    ///
    /// # Errors
    /// The keeper cannot be reached.
    pub fn take_over(&self, mount: &str) -> Result<Option<RecoveredMount>, KeeperError> {
        let (response, descriptors) = self.request(
            &Request::TakeOver {
                mount: mount.to_owned(),
            },
            &[],
        )?;
        match response {
            Response::Mount { note } => match <[OwnedFd; 2]>::try_from(descriptors) {
                Ok([device, table]) => Ok(Some(RecoveredMount { device, table, note })),
                Err(others) => Err(KeeperError::Message {
                    reason: format!("{} descriptors instead of 2", others.len()),
                }),
            },
            Response::Nothing => Ok(None),
            other => done(other).map(|()| None),
        }
    }

    /// Reports that a mount is unmounted: the keeper closes its descriptors.
    ///
    /// # Errors
    /// The keeper cannot be reached.
    pub fn unregister(&self, mount: &str) -> Result<(), KeeperError> {
        done(
            self.request(
                &Request::Unregister {
                    mount: mount.to_owned(),
                },
                &[],
            )?
            .0,
        )
    }

    /// Reports that this server serves.
    ///
    /// # Errors
    /// The keeper cannot be reached.
    pub fn ready(&self) -> Result<(), KeeperError> {
        done(self.request(&Request::Ready, &[])?.0)
    }

    /// Reports that this server exits on purpose and another one will start.
    ///
    /// # Errors
    /// The keeper cannot be reached.
    pub fn stopping(&self) -> Result<(), KeeperError> {
        done(self.request(&Request::Stopping, &[])?.0)
    }

    fn request(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(Response, Vec<OwnedFd>), KeeperError> {
        let socket = self.socket.lock();
        let response = match &*socket {
            Some(socket) => send(socket, request, descriptors).and_then(|()| receive(socket)),
            None => Err(KeeperError::Closed),
        };
        match (response, self.on_disconnect) {
            (Err(KeeperError::Closed), OnDisconnect::Reconnect) => Ok((Response::Nothing, Vec::new())),
            (response, _) => response,
        }
    }
}

fn done(response: Response) -> Result<(), KeeperError> {
    match response {
        Response::Done | Response::Nothing => Ok(()),
        Response::Refused { reason } => Err(KeeperError::Refused { reason }),
        Response::Mount { .. } => Err(KeeperError::Message {
            reason: "a response to another request".to_owned(),
        }),
    }
}
