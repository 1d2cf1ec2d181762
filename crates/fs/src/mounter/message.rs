//! The messages between a mounter and its clients.
//!
//! Paths are `OsString`s, which may contain any byte; serde requires a `PathBuf` to be UTF-8.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::mount::{MountError, Overlay, Size};

/// Raised when a message changes its meaning. Either side refuses another version.
pub(super) const VERSION: u32 = 1;

/// A client's request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// Mounts an overlay.
    Overlay(Overlay),
    /// Clones a directory as a mount.
    Tree { directory: OsString },
    /// Returns the size of a file system.
    Size { path: OsString },
}

/// The mounter's response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Response {
    /// The mount is attached to the message.
    Mounted,
    Size(Size),
    /// The kernel's error.
    Failed(Failure),
    /// The request is invalid, or too many wait.
    Refused {
        reason: String,
    },
}

/// A [`MountError`] in a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    action: String,
    path: OsString,
    log: Vec<String>,
    errno: i32,
}

impl From<MountError> for Failure {
    fn from(error: MountError) -> Self {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        let MountError {
            action, path, log, ..
        } = error;
        Self {
            action: action.into_owned(),
            path: path.into(),
            log,
            errno,
        }
    }
}

impl From<Failure> for MountError {
    fn from(failure: Failure) -> Self {
        let Failure {
            action,
            path,
            log,
            errno,
        } = failure;
        let source = io::Error::from_raw_os_error(errno);
        Self::new(action, &PathBuf::from(path), source).with_log(log)
    }
}
