//! What a worker asks of the driver.

use crate::ObjectId;
use async_trait::async_trait;

/// Why the kernel still holds objects that were unlinked.
#[derive(Debug, thiserror::Error)]
#[error("failed to make the views release unlinked objects: {reason}")]
pub struct ReleaseError {
    /// What went wrong, for a log line.
    pub reason: String,
}

/// The mounted views of one Dataset on this node, as far as eviction needs them.
#[async_trait]
pub trait Views: Send + Sync + 'static {
    /// Makes every view of the Dataset let go of `unlinked`, so that the file system gets their space back.
    ///
    /// When it returns `Ok`, no view's cache holds any of these objects any more: a lookup that comes later
    /// goes through all layers again. Objects that somebody has open stay readable by them.
    ///
    /// # Errors
    /// The space must be counted as used until a later call succeeds.
    async fn release(&self, unlinked: &[ObjectId]) -> Result<(), ReleaseError>;
}

/// A node where nothing is mounted.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoViews;

#[async_trait]
impl Views for NoViews {
    async fn release(&self, _unlinked: &[ObjectId]) -> Result<(), ReleaseError> {
        Ok(())
    }
}
