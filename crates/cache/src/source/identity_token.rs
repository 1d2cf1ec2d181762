//! A web identity token where object_store looks for it: in a file.
//!
//! The worker receives tokens by value and writes no secret to a disk: the file is in memory, without a name,
//! readable by this process only, and ends with the source.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;

use rustix::fs::MemfdFlags;

/// A token in a file of this process.
#[derive(Debug)]
pub(super) struct IdentityToken {
    file: File,
}

impl IdentityToken {
    pub(super) fn new(token: &str) -> io::Result<Self> {
        let mut file = File::from(rustix::fs::memfd_create("token", MemfdFlags::CLOEXEC)?);
        file.write_all(token.as_bytes())?;
        Ok(Self { file })
    }

    /// Returns the path under which this process reads it, from the beginning each time.
    pub(super) fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }
}
