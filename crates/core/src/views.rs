//! Interface of a worker to the driver.

use crate::ObjectId;
use async_trait::async_trait;

/// Error of [`Views::release`]: the kernel still references unlinked objects.
#[derive(Debug, thiserror::Error)]
#[error("failed to make the views release unlinked objects: {reason}")]
pub struct ReleaseError {
    /// Cause, for a log line.
    pub reason: String,
}

/// Mounted views of one Dataset on this node, as needed by eviction.
#[async_trait]
pub trait Views: Send + Sync + 'static {
    /// Makes every view of the Dataset release `unlinked`, so that the file system frees their space.
    ///
    /// After `Ok` no view's dentry cache references any of these objects: later lookups search all layers again. Objects
    /// that a process has open stay readable for it.
    ///
    /// # Errors
    /// The space must be counted as used until a later call succeeds.
    async fn release(&self, unlinked: &[ObjectId]) -> Result<(), ReleaseError>;
}

/// Views of a node where nothing is mounted.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoViews;

#[async_trait]
impl Views for NoViews {
    async fn release(&self, _unlinked: &[ObjectId]) -> Result<(), ReleaseError> {
        Ok(())
    }
}
