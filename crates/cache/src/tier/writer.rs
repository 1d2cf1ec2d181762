//! Writes into a tier's directory, which is recreated when it was deleted while in use.
//!
//! Locks, outermost first: [`DirectoryWriter::recreating`], then those of the state file, of the partial objects and of the
//! accounts. No other lock of the tier but a partial object's `publishing` is held by a caller of [`DirectoryWriter::write`].

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::warn;

use super::directory::{Directory, TierDir};
use super::error::NotStored;
use super::files::TierFiles;
use super::partial_table::PartialTable;
use super::shards::Shards;
use super::state::StateFile;

/// Writes into a tier's directory.
#[derive(Debug)]
pub(super) struct DirectoryWriter {
    files: Arc<TierFiles>,
    state: Arc<StateFile>,
    partials: Arc<PartialTable>,
    shards: Arc<Shards>,
    /// Only one thread recreates directories.
    recreating: Mutex<()>,
}

impl DirectoryWriter {
    pub(super) fn new(
        files: &Arc<TierFiles>,
        state: &Arc<StateFile>,
        partials: &Arc<PartialTable>,
        shards: &Arc<Shards>,
    ) -> Arc<Self> {
        Arc::new(Self {
            files: Arc::clone(files),
            state: Arc::clone(state),
            partials: Arc::clone(partials),
            shards: Arc::clone(shards),
            recreating: Mutex::new(()),
        })
    }

    /// Calls `write`; where a directory was deleted, recreates it and calls `write` once more.
    ///
    /// # Errors
    /// Counted and logged here.
    pub(super) fn write<T>(
        &self,
        doing: &'static str,
        write: impl Fn(&Directory) -> io::Result<T>,
    ) -> Result<T, NotStored> {
        let mut result = write(&self.files.directory());
        if result
            .as_ref()
            .is_err_and(|error| error.raw_os_error() == Some(libc::ENOENT))
        {
            result = self
                .recreate_directories()
                .and_then(|()| write(&self.files.directory()));
        }
        match result {
            Ok(done) => {
                self.files.succeeded();
                Ok(done)
            }
            Err(error) => {
                self.files.failed(doing, &error);
                Err(NotStored::Failed)
            }
        }
    }

    /// Recreates deleted directories, and corrects the accounts of what was deleted with them.
    fn recreate_directories(&self) -> io::Result<()> {
        let _only = self.recreating.lock();
        let directory = self.files.directory();
        if TierDir::BELOW.iter().all(|place| directory.has_name(*place)) {
            return Ok(());
        }
        warn!(path = %directory.path().display(), "cache directory deleted; recreating it");
        let recreated = directory.recreate()?;
        self.state.write(&recreated)?;
        self.files.replace(recreated);
        self.partials.drop_deleted(&self.files.directory());
        self.shards.rescan_all()
    }
}
