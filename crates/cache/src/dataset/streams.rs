//! The open files that are being read.

use std::collections::HashMap;
use std::sync::Arc;

use millpond_core::{ObjectRef, ReadError, StreamId};
use parking_lot::Mutex;

use super::block_reader::BlockReader;
use super::object_state::ObjectState;
use super::readahead::ReadaheadState;

/// Open files remembered at once. A reader beyond them is served without read-ahead.
const MAX_STREAMS: usize = 65_536;

/// One open file.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) active: Arc<ObjectState>,
    pub(super) pattern: Mutex<ReadaheadState>,
}

/// All open files that were read at least once.
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: Mutex<HashMap<StreamId, Arc<Stream>>>,
}

impl Streams {
    /// The open file, which begins to exist with its first read.
    pub(super) async fn get(
        &self,
        large: &Arc<BlockReader>,
        object: ObjectRef,
        id: StreamId,
    ) -> Result<Arc<Stream>, ReadError> {
        if let Some(stream) = self
            .open
            .lock()
            .get(&id)
            .filter(|stream| stream.active.object.id == object.id)
        {
            return Ok(Arc::clone(stream));
        }
        let active = large.open(object).await?;
        let stream = Arc::new(Stream {
            active,
            pattern: Mutex::default(),
        });
        let mut open = self.open.lock();
        if open.len() < MAX_STREAMS {
            // Two first reads of one file at the same time: the later one follows the pattern of both.
            open.insert(id, Arc::clone(&stream));
        }
        Ok(stream)
    }

    /// Forgets a closed file.
    pub(super) fn closed(&self, id: StreamId) {
        let closed = self.open.lock().remove(&id);
        // Dropped after the lock: it may be the last reader of an object.
        drop(closed);
    }

    /// How many are open.
    pub(super) fn count(&self) -> usize {
        self.open.lock().len()
    }
}
