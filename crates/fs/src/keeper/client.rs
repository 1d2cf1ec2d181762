//! The server's side.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use parking_lot::Mutex;

use super::message::{Answer, KeeperError, Request, receive, send};
use crate::peer;

/// A server's connection to its keeper. Closing it tells the keeper that the server is gone.
#[derive(Debug)]
pub struct KeeperClient {
    /// One question at a time. The lock is held for the round trip, which is why this is not for the read path.
    /// `None`: the keeper is away.
    socket: Mutex<Option<OwnedFd>>,
    absence: OnDisconnect,
}

/// What it means that the keeper is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnDisconnect {
    /// It is gone for ever, and so is this server.
    Fatal,
    /// It comes back, and is told everything then.
    Reconnect,
}

/// What the keeper held of a mount.
#[derive(Debug)]
pub struct RecoveredMount {
    /// The `/dev/fuse` descriptor.
    pub device: OwnedFd,
    /// The shared memory with the open files.
    pub table: OwnedFd,
    /// What the server before had noted.
    pub note: String,
}

impl KeeperClient {
    /// Speaks over a socket that [`super::KeeperServer::socket`] made.
    pub const fn new(socket: OwnedFd) -> Self {
        Self {
            socket: Mutex::new(Some(socket)),
            absence: OnDisconnect::Fatal,
        }
    }

    /// A client of a keeper that comes and goes, away for now: see [`Self::connect`]. While it is away, what it would be
    /// told counts as done, and it holds nothing.
    pub const fn of_lasting() -> Self {
        Self {
            socket: Mutex::new(None),
            absence: OnDisconnect::Reconnect,
        }
    }

    /// Speaks to the keeper that listens at `path` from now on. The answer is ready to be read when that one is gone.
    /// Everything has to be told to it again.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(&self, path: &Path) -> Result<OwnedFd, KeeperError> {
        let socket = peer::connect(path)?;
        let watched = socket.try_clone()?;
        *self.socket.lock() = Some(socket);
        Ok(watched)
    }

    /// Notes that the keeper is away.
    pub fn lost(&self) {
        self.socket.lock().take();
    }

    /// Speaks over the standard input, where a supervisor puts the socket for the server it starts.
    ///
    /// # Errors
    /// When it is not open.
    pub fn from_stdin() -> Result<Self, KeeperError> {
        Ok(Self::new(std::io::stdin().as_fd().try_clone_to_owned()?))
    }

    /// Gives a mount into keeping.
    ///
    /// # Errors
    /// When the keeper does not have it afterwards.
    pub fn register(
        &self,
        mount: &str,
        connection: u32,
        note: &str,
        device: BorrowedFd<'_>,
        table: BorrowedFd<'_>,
    ) -> Result<(), KeeperError> {
        let request = Request::Give {
            mount: mount.to_owned(),
            connection,
            note: note.to_owned(),
        };
        done(self.ask(&request, &[device, table])?.0)
    }

    /// Takes a mount over. Waits until no other server is connected. `None`: the keeper holds no such mount.
    ///
    /// # Errors
    /// When the keeper cannot be asked.
    pub fn take_over(&self, mount: &str) -> Result<Option<RecoveredMount>, KeeperError> {
        let (answer, descriptors) = self.ask(
            &Request::Take {
                mount: mount.to_owned(),
            },
            &[],
        )?;
        match answer {
            Answer::Kept { note } => match <[OwnedFd; 2]>::try_from(descriptors) {
                Ok([device, table]) => Ok(Some(RecoveredMount { device, table, note })),
                Err(others) => Err(KeeperError::Message {
                    reason: format!("{} descriptors instead of 2", others.len()),
                }),
            },
            Answer::Nothing => Ok(None),
            other => done(other).map(|()| None),
        }
    }

    /// Says that a mount is unmounted.
    ///
    /// # Errors
    /// When the keeper cannot be asked.
    pub fn unregister(&self, mount: &str) -> Result<(), KeeperError> {
        done(
            self.ask(
                &Request::Drop {
                    mount: mount.to_owned(),
                },
                &[],
            )?
            .0,
        )
    }

    /// Says that this server serves.
    ///
    /// # Errors
    /// When the keeper cannot be asked.
    pub fn ready(&self) -> Result<(), KeeperError> {
        done(self.ask(&Request::Ready, &[])?.0)
    }

    /// Says that this server ends on purpose and another will come.
    ///
    /// # Errors
    /// When the keeper cannot be asked.
    pub fn stopping(&self) -> Result<(), KeeperError> {
        done(self.ask(&Request::Stopping, &[])?.0)
    }

    fn ask(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(Answer, Vec<OwnedFd>), KeeperError> {
        let socket = self.socket.lock();
        let answer = match &*socket {
            Some(socket) => send(socket, request, descriptors).and_then(|()| receive(socket)),
            None => Err(KeeperError::Closed),
        };
        match (answer, self.absence) {
            (Err(KeeperError::Closed), OnDisconnect::Reconnect) => Ok((Answer::Nothing, Vec::new())),
            (answer, _) => answer,
        }
    }
}

fn done(answer: Answer) -> Result<(), KeeperError> {
    match answer {
        Answer::Done | Answer::Nothing => Ok(()),
        Answer::Refused { reason } => Err(KeeperError::Refused { reason }),
        Answer::Kept { .. } => Err(KeeperError::Message {
            reason: "an answer to another question".to_owned(),
        }),
    }
}
