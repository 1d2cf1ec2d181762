//! What all parts of the read path share.

use std::ops::Range;
use std::sync::Arc;

use millpond_catalog::{Object, SourceInfo};
use millpond_core::{ObjectId, ReadError};

use super::open_files::OpenFiles;
use super::transient::TransientBlocks;
use crate::dataset::catalogs::Catalogs;
use crate::dataset::mounts::Mount;
use crate::dataset::refresh::Refresher;
use crate::dataset::sources::Sources;
use crate::fetch::{Budget, FetchError, Priority, Request};
use crate::store::Store;

/// The store, the sources and the shared tables of the read path.
#[derive(Debug)]
pub(in crate::dataset) struct FetchContext {
    pub(in crate::dataset) store: Arc<Store>,
    pub(in crate::dataset) sources: Arc<Sources>,
    pub(in crate::dataset) budget: Budget,
    pub(in crate::dataset) catalogs: Arc<Catalogs>,
    pub(in crate::dataset) refresher: Arc<Refresher>,
    pub(in crate::dataset) transient: TransientBlocks,
    pub(in crate::dataset) open_files: OpenFiles,
}

impl FetchContext {
    /// Returns the mount that serves an object.
    pub(super) fn mount(&self, id: ObjectId, source: &SourceInfo) -> Result<Arc<Mount>, ReadError> {
        self.sources
            .mount_of(source)
            .ok_or_else(|| ReadError::Unavailable {
                id,
                reason: format!("its source {} is no longer part of this Dataset", source.id),
            })
    }

    /// Returns the request for a range of an object.
    pub(super) fn request(object: &Object, range: Range<u64>, priority: Priority) -> Request {
        Request {
            key: object.key.clone(),
            validator: object.validator.clone(),
            size_bytes: object.size_bytes,
            range,
            priority,
        }
    }

    /// Returns the error for the reader, and requests a new listing if the object changed at its source.
    pub(super) fn read_error(&self, id: ObjectId, error: &FetchError) -> ReadError {
        match error {
            FetchError::Changed { .. } => {
                self.refresher.object_changed();
                ReadError::Changed { id }
            }
            FetchError::Denied { .. } | FetchError::Unavailable { .. } => ReadError::Unavailable {
                id,
                reason: error.to_string(),
            },
        }
    }
}
