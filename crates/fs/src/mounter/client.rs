//! The client of a mounter.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::message::{Request, Response, VERSION};
use crate::mount::{DetachedMount, MountError, Overlay, Size};
use crate::peer::{self, MessageError};

/// How long a request waits for a mounter to listen. One that restarts takes about a second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two attempts to reach it.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(20);

type Result<T> = std::result::Result<T, MountError>;

/// The client of a mounter. Each request has a connection, so a mounter may restart between them.
///
/// All calls block until the mounter has responded, and fail with the kernel's own error.
#[derive(Clone, Debug)]
pub struct Mounter {
    socket: PathBuf,
}

impl Mounter {
    /// The client of the mounter that listens at `socket`, now or soon.
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// Mounts an overlay.
    pub(crate) fn overlay(&self, overlay: Overlay) -> Result<DetachedMount> {
        self.mount(&Request::Overlay(overlay))
    }

    /// Clones a directory of another mount as a mount.
    ///
    /// # Errors
    /// The mounter cannot be reached, or the kernel rejects it.
    pub fn tree(&self, directory: &Path) -> Result<DetachedMount> {
        self.mount(&Request::Tree {
            directory: directory.into(),
        })
    }

    /// Returns the size of the file system at `path`.
    ///
    /// # Errors
    /// The mounter cannot be reached, or the file system fails.
    pub fn size(&self, path: &Path) -> Result<Size> {
        match self.request(&Request::Size { path: path.into() })? {
            (Response::Size(size), _) => Ok(size),
            (other, _) => Err(self.unexpected(other)),
        }
    }

    fn mount(&self, request: &Request) -> Result<DetachedMount> {
        match self.request(request)? {
            (Response::Mounted, descriptors) => match <[OwnedFd; 1]>::try_from(descriptors) {
                Ok([mount]) => Ok(mount.into()),
                Err(others) => Err(self.invalid(format!("{} descriptors instead of 1", others.len()))),
            },
            (other, _) => Err(self.unexpected(other)),
        }
    }

    fn request(&self, request: &Request) -> Result<(Response, Vec<OwnedFd>)> {
        let broken =
            |error| MountError::new("get a response of the mounter at", &self.socket, io_error(error));
        let connection = self
            .connect()
            .map_err(|error| MountError::new("reach the mounter at", &self.socket, error))?;
        peer::send(&connection, VERSION, request, &[]).map_err(broken)?;
        let response = peer::receive(&connection, VERSION).map_err(broken)?;
        // Until it has closed the connection it may hold the mount too, which would be in use then.
        let _closed = rustix::io::retry_on_intr(|| rustix::io::read(&connection, &mut [0; 1]));
        Ok(response)
    }

    fn connect(&self) -> io::Result<OwnedFd> {
        let until = Instant::now() + CONNECT_TIMEOUT;
        loop {
            match peer::connect(&self.socket) {
                Err(error) if is_unavailable(&error) && Instant::now() < until => wait_for_retry(),
                other => return other,
            }
        }
    }

    /// The error of a response other than the requested one.
    fn unexpected(&self, response: Response) -> MountError {
        match response {
            Response::Failed(failure) => failure.into(),
            Response::Refused { reason } => self.invalid(reason),
            Response::Mounted | Response::Size(_) => self.invalid("a response to another request".to_owned()),
        }
    }

    fn invalid(&self, reason: String) -> MountError {
        let reason = io::Error::other(reason);
        MountError::new("get a valid response of the mounter at", &self.socket, reason)
    }
}

fn io_error(error: MessageError) -> io::Error {
    match error {
        MessageError::Io(error) => error,
        MessageError::Closed => io::Error::new(io::ErrorKind::ConnectionReset, "it has exited"),
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
fn wait_for_retry() {
    std::thread::sleep(ATTEMPT_INTERVAL);
}
