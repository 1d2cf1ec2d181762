//! The files that are open through FUSE, each a use of its object.
//!
//! Eviction spares what somebody has open or mapped, and the kernel tells it of all but these: a file that FUSE reads
//! for is open in FUSE alone. So for as long as there is one, the worker itself keeps the object open: from the open on,
//! whether it was read or not, whether the object was here then or comes later, and by whichever way it comes. What
//! the kernel reads by passthrough needs none of this.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use millpond_core::ObjectId;
use millpond_core::{ObjectRef, StreamId};
use parking_lot::Mutex;

use crate::store::{Partial, Store};

/// Files at once, as many as the driver knows; those beyond it are no uses until they are read.
const MAX_OPEN: usize = 1 << 20;

/// What keeps an object from being evicted: its fields are held and never looked at.
#[derive(Clone, Debug)]
pub(super) enum ObjectPin {
    /// All of it is here.
    File(#[expect(dead_code, reason = "held open")] Arc<File>),
    /// Some of it is, or was when it was opened.
    Partial(#[expect(dead_code, reason = "held open")] Arc<Partial>),
}

/// The files that are open, and what they hold.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    files: HashMap<StreamId, ObjectId>,
    objects: HashMap<ObjectId, Use>,
}

#[derive(Debug, Default)]
struct Use {
    files: usize,
    /// `None`: nothing of it is here, as far as we know.
    held: Option<ObjectPin>,
}

impl OpenFiles {
    /// Notes an open file, and what is here of it if that is known. Says whether its object is held.
    pub(super) fn opened(&self, id: ObjectId, file: StreamId, held: Option<ObjectPin>) -> bool {
        let mut open = self.open.lock();
        if open.files.len() >= MAX_OPEN {
            return true;
        }
        let is_new = open.files.insert(file, id).is_none();
        let used = open.objects.entry(id).or_default();
        used.files += usize::from(is_new);
        if used.held.is_none() {
            used.held = held;
        }
        used.held.is_some()
    }

    /// Forgets a closed file; with the last one of an object, the object may go.
    pub(super) fn closed(&self, file: StreamId) {
        let mut open = self.open.lock();
        let Some(id) = open.files.remove(&file) else {
            return;
        };
        let last = match open.objects.get_mut(&id) {
            Some(used) if used.files > 1 => {
                used.files -= 1;
                None
            }
            _ => open.objects.remove(&id),
        };
        // What it held is closed after the lock.
        drop(open);
        drop(last);
    }

    /// Holds an object for those who have it open, if anybody has.
    pub(super) fn hold(&self, id: ObjectId, held: ObjectPin) {
        let mut open = self.open.lock();
        let before = match open.objects.get_mut(&id) {
            Some(used) => used.held.replace(held),
            None => Some(held),
        };
        drop(open);
        drop(before);
    }

    /// Holds an object that was just put into the store.
    pub(super) async fn pin_stored(&self, store: &Store, id: ObjectId, size_bytes: u64) {
        let is_open = self.open.lock().objects.contains_key(&id);
        if is_open && let Some(file) = store.object(id, size_bytes).await {
            self.hold(id, ObjectPin::File(file));
        }
    }

    /// Holds what is here of an object that is open.
    pub(super) async fn pin_existing(&self, store: &Store, object: ObjectRef) {
        let ObjectRef { id, size_bytes, .. } = object;
        if store.is_ready(id, size_bytes).await {
            return self.pin_stored(store, id, size_bytes).await;
        }
        store.scanned().await;
        if store.has_partial(id)
            && let Some(partial) = store.existing_partial(id, size_bytes).await
        {
            self.hold(id, ObjectPin::Partial(partial));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> (ObjectPin, Arc<File>) {
        let file = Arc::new(tempfile::tempfile().unwrap());
        (ObjectPin::File(Arc::clone(&file)), file)
    }

    const A: ObjectId = ObjectId::from_bytes([1; 16]);

    #[test]
    fn an_object_is_held_until_its_last_file_is_closed() {
        let uses = OpenFiles::default();
        let (first, file) = held();
        assert!(!uses.opened(A, StreamId(1), None));
        uses.hold(A, first);
        assert!(uses.opened(A, StreamId(2), None));
        // The same open again, after a restart of its request.
        assert!(uses.opened(A, StreamId(2), None));
        uses.closed(StreamId(1));
        uses.closed(StreamId(1));
        assert_eq!(Arc::strong_count(&file), 2);
        uses.closed(StreamId(2));
        assert_eq!(Arc::strong_count(&file), 1);
    }

    #[test]
    fn what_nobody_has_open_is_not_held() {
        let uses = OpenFiles::default();
        let (held, file) = held();
        uses.hold(A, held);
        assert_eq!(Arc::strong_count(&file), 1);
    }
}
