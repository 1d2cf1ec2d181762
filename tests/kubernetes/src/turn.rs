//! Cases side by side, in one process or several, and cases alone.
//!
//! A case takes its turn before it uses the cluster: one that runs alone may have stopped a part of it.

use std::fs::File;

use anyhow::{Context, Result};

use crate::Cluster;

/// Permission for a case to run, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    /// The lock ends with it.
    _lock: File,
}

impl Turn {
    /// Waits until no case runs alone.
    ///
    /// # Errors
    /// The lock cannot be taken.
    pub fn side_by_side(cluster: &Cluster) -> Result<Self> {
        let lock = cluster.shared_file("cases.lock")?;
        lock.lock_shared()
            .context("failed to wait for the cases that run alone")?;
        Ok(Self { _lock: lock })
    }

    /// Waits until no other case runs.
    ///
    /// # Errors
    /// The lock cannot be taken.
    pub fn alone(cluster: &Cluster) -> Result<Self> {
        let lock = cluster.shared_file("cases.lock")?;
        lock.lock().context("failed to wait for the other cases")?;
        Ok(Self { _lock: lock })
    }
}
