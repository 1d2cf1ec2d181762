//! The side of those who have mounts made.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::message::{Answer, Request, VERSION};
use crate::mount::{DetachedMount, MountError, Overlay, Size};
use crate::peer::{self, MessageError};

/// A mounter that is started anew is away for about a second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two attempts to reach it.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(20);

type Result<T> = std::result::Result<T, MountError>;

/// The line to a mounter. There is a connection for each request, so a mounter may come and go between them.
///
/// All calls block until the mounter has answered, and fail with the kernel's own error.
#[derive(Clone, Debug)]
pub struct Mounter {
    socket: PathBuf,
}

impl Mounter {
    /// The mounter that listens at `socket`, now or soon.
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// Makes an overlay.
    pub(crate) fn overlay(&self, overlay: Overlay) -> Result<DetachedMount> {
        self.mount(&Request::Overlay(overlay))
    }

    /// Makes a mount of a directory of another mount.
    ///
    /// # Errors
    /// The mounter cannot be reached, or the kernel refuses.
    pub fn tree(&self, directory: &Path) -> Result<DetachedMount> {
        self.mount(&Request::Tree {
            directory: directory.into(),
        })
    }

    /// Asks the file system at `path` for its size.
    ///
    /// # Errors
    /// The mounter cannot be reached, or the file system does not answer it.
    pub fn size(&self, path: &Path) -> Result<Size> {
        match self.ask(&Request::Size { path: path.into() })? {
            (Answer::Size(size), _) => Ok(size),
            (other, _) => Err(self.other(other)),
        }
    }

    fn mount(&self, request: &Request) -> Result<DetachedMount> {
        match self.ask(request)? {
            (Answer::Mounted, descriptors) => match <[OwnedFd; 1]>::try_from(descriptors) {
                Ok([mount]) => Ok(mount.into()),
                Err(others) => Err(self.foreign(format!("{} descriptors instead of 1", others.len()))),
            },
            (other, _) => Err(self.other(other)),
        }
    }

    fn ask(&self, request: &Request) -> Result<(Answer, Vec<OwnedFd>)> {
        let broken = |error| MountError::new("have the mounter answer at", &self.socket, io_error(error));
        let line = self
            .connect()
            .map_err(|error| MountError::new("reach the mounter at", &self.socket, error))?;
        peer::send(&line, VERSION, request, &[]).map_err(broken)?;
        let answer = peer::receive(&line, VERSION).map_err(broken)?;
        // Until it has closed the line it may hold the mount too, which would be in use then.
        let _closed = rustix::io::retry_on_intr(|| rustix::io::read(&line, &mut [0; 1]));
        Ok(answer)
    }

    fn connect(&self) -> io::Result<OwnedFd> {
        let until = Instant::now() + CONNECT_TIMEOUT;
        loop {
            match peer::connect(&self.socket) {
                Err(error) if is_unavailable(&error) && Instant::now() < until => pause(),
                other => return other,
            }
        }
    }

    /// The error that an answer is which is not the one that was asked for.
    fn other(&self, answer: Answer) -> MountError {
        match answer {
            Answer::Failed(failure) => failure.into(),
            Answer::Refused { reason } => self.foreign(reason),
            Answer::Mounted | Answer::Size(_) => self.foreign("an answer to another question".to_owned()),
        }
    }

    fn foreign(&self, reason: String) -> MountError {
        let reason = io::Error::other(reason);
        MountError::new("be understood by the mounter at", &self.socket, reason)
    }
}

fn io_error(error: MessageError) -> io::Error {
    match error {
        MessageError::Io(error) => error,
        MessageError::Closed => io::Error::new(io::ErrorKind::ConnectionReset, "it has ended"),
        MessageError::Message { reason } => io::Error::new(io::ErrorKind::InvalidData, reason),
    }
}

fn is_unavailable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

#[expect(
    clippy::disallowed_methods,
    reason = "connect(2) does not wait for a listener; this is no asynchronous thread's work"
)]
fn pause() {
    std::thread::sleep(ATTEMPT_INTERVAL);
}
