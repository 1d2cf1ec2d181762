//! Errors of mount calls, with the kernel's own log.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A failed mount call.
#[derive(Debug, thiserror::Error)]
pub struct MountError {
    pub(crate) action: Cow<'static, str>,
    pub(crate) path: PathBuf,
    /// What the kernel wrote into the mount context's log.
    pub(crate) log: Vec<String>,
    #[source]
    pub(crate) source: io::Error,
}

/// The result of this module's calls.
pub(crate) type Result<T> = std::result::Result<T, MountError>;

impl MountError {
    pub(crate) fn new(
        action: impl Into<Cow<'static, str>>,
        path: &Path,
        source: impl Into<io::Error>,
    ) -> Self {
        Self {
            action: action.into(),
            path: path.to_owned(),
            log: Vec::new(),
            source: source.into(),
        }
    }

    /// Adds what the kernel wrote into the mount context's log.
    pub(crate) fn with_log(mut self, log: Vec<String>) -> Self {
        self.log = log;
        self
    }

    /// The error number, by which callers choose an alternative.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

impl From<MountError> for io::Error {
    /// The system's error alone.
    fn from(error: MountError) -> Self {
        error.source
    }
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to {} {:?}", self.action, self.path)?;
        if !self.log.is_empty() {
            write!(f, " (kernel log: {})", self.log.join("; "))?;
        }
        Ok(())
    }
}
