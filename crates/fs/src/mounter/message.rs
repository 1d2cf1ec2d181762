//! What a mounter is asked and answers.
//!
//! Paths are `OsString`s, which may hold any byte; serde would have a `PathBuf` be UTF-8.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::mount::{MountError, Overlay, Size};

/// Raised when a message changes its meaning. Either side refuses another version.
pub(super) const VERSION: u32 = 1;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// Make an overlay.
    Overlay(Overlay),
    /// Make a mount of a directory.
    Tree { directory: OsString },
    /// Ask for the size of a file system.
    Size { path: OsString },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The mount comes along.
    Mounted,
    Size(Size),
    /// The kernel refused.
    Failed(Failure),
    /// It was not even tried.
    Refused {
        reason: String,
    },
}

/// A [`MountError`] on its way.
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
