//! Dropping the kernel's file caches.

use std::fs;
use std::path::Path;

use crate::{Error, Result};

/// Caches to drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caches {
    /// Content of files.
    Pages,
    /// Names and inodes; content stays.
    Names,
    /// Content, names and inodes.
    All,
}

/// Writes all dirty data back and drops the caches of the machine.
///
/// # Errors
/// If the process is not root.
pub fn drop_caches(caches: Caches) -> Result<()> {
    rustix::fs::sync();
    let what = match caches {
        Caches::Pages => "1",
        Caches::Names => "2",
        Caches::All => "3",
    };
    fs::write(Path::new("/proc/sys/vm/drop_caches"), what).map_err(Error::Caches)
}
