//! The files that are open through FUSE: the object of each, the state of its reader, and the pins of the objects.
//!
//! Eviction spares objects that are open or mapped, and the kernel reports all of those but these: a file that FUSE
//! reads for is open in FUSE alone. So the worker itself keeps the object open as long as such a file is: from the
//! open on, whether it was read or not, and whether the object was cached then or is stored later, by whichever way.
//! A file that the kernel reads by passthrough needs no pin.
//!
//! One lock for all; no file is closed under it.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use millpond_core::{ObjectId, ObjectRef, StreamId};
use parking_lot::Mutex;

use super::object_state::ObjectState;
use super::readahead::ReadaheadState;
use crate::store::{Partial, Store};

/// Open files, as many as the driver tracks; further ones do not pin their object until they are read.
const MAX_OPEN: usize = 1 << 20;

/// Files with a reader's state. Further ones are read without readahead.
const MAX_READERS: usize = 65_536;

/// An open file of the store that keeps its object from being evicted.
#[derive(Clone, Debug)]
pub(in crate::dataset) enum ObjectPin {
    /// Of the complete object.
    File(#[expect(dead_code, reason = "held open")] Arc<File>),
    /// Of an object that was incomplete when it was opened.
    Partial(#[expect(dead_code, reason = "held open")] Arc<Partial>),
}

/// The reader of one open file.
#[derive(Debug)]
pub(in crate::dataset) struct FileReader {
    pub(in crate::dataset) state: Arc<ObjectState>,
    pub(in crate::dataset) readahead: Mutex<ReadaheadState>,
}

/// All files that are open through FUSE.
#[derive(Debug, Default)]
pub(in crate::dataset) struct OpenFiles {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    files: HashMap<StreamId, OpenFile>,
    objects: HashMap<ObjectId, OpenObject>,
    /// Files that have a reader.
    readers: usize,
}

#[derive(Debug, Default)]
struct OpenFile {
    /// The object that the file references; `None`: its open was not reported.
    object: Option<ObjectId>,
    /// `None`: the file was not read yet.
    reader: Option<Arc<FileReader>>,
}

#[derive(Debug, Default)]
struct OpenObject {
    /// The reference count: files that are open.
    files: usize,
    /// `None`: nothing of the object is known to be cached.
    pin: Option<ObjectPin>,
}

impl OpenFiles {
    /// Records an open file, with a pin of its object if the caller has one. Returns whether the object is pinned.
    pub(in crate::dataset) fn open(&self, id: ObjectId, file: StreamId, pin: Option<ObjectPin>) -> bool {
        let mut table = self.table.lock();
        if table.files.len() >= MAX_OPEN {
            return true;
        }
        let is_new = table.files.entry(file).or_default().object.replace(id).is_none();
        let object = table.objects.entry(id).or_default();
        object.files += usize::from(is_new);
        if object.pin.is_none() {
            object.pin = pin;
        }
        object.pin.is_some()
    }

    /// Returns the reader of a file, if `object` was read through it before.
    pub(in crate::dataset) fn reader(&self, object: ObjectId, file: StreamId) -> Option<Arc<FileReader>> {
        let table = self.table.lock();
        let reader = table.files.get(&file)?.reader.as_ref()?;
        (reader.state.object.id == object).then(|| Arc::clone(reader))
    }

    /// Creates the reader of a file, at its first read.
    pub(in crate::dataset) fn start_reading(
        &self,
        state: Arc<ObjectState>,
        file: StreamId,
    ) -> Arc<FileReader> {
        let reader = Arc::new(FileReader {
            state,
            readahead: Mutex::default(),
        });
        let mut table = self.table.lock();
        let mut previous = None;
        if table.readers < MAX_READERS {
            // Two concurrent first reads of one file: the later one replaces the reader of the other.
            previous = table
                .files
                .entry(file)
                .or_default()
                .reader
                .replace(Arc::clone(&reader));
            table.readers += usize::from(previous.is_none());
        }
        drop(table);
        drop(previous);
        reader
    }

    /// Removes a closed file. With the last one of an object its pin is released.
    pub(in crate::dataset) fn close(&self, file: StreamId) {
        let mut table = self.table.lock();
        let Some(closed) = table.files.remove(&file) else {
            return;
        };
        table.readers -= usize::from(closed.reader.is_some());
        let last = closed.object.and_then(|id| table.release(id));
        drop(table);
        drop((closed, last));
    }

    /// Pins an object, if a file of it is open.
    pub(super) fn pin(&self, id: ObjectId, pin: ObjectPin) {
        let mut table = self.table.lock();
        let previous = match table.objects.get_mut(&id) {
            Some(object) => object.pin.replace(pin),
            None => Some(pin),
        };
        drop(table);
        drop(previous);
    }

    /// Pins an object that was just stored, if a file of it is open.
    pub(super) async fn pin_stored(&self, store: &Store, id: ObjectId, size_bytes: u64) {
        let is_open = self.table.lock().objects.contains_key(&id);
        if is_open && let Some(file) = store.object(id, size_bytes).await {
            self.pin(id, ObjectPin::File(file));
        }
    }

    /// Pins what is cached of an object, if a file of it is open.
    pub(in crate::dataset) async fn pin_existing(&self, store: &Store, object: ObjectRef) {
        let ObjectRef { id, size_bytes, .. } = object;
        if store.is_ready(id, size_bytes).await {
            return self.pin_stored(store, id, size_bytes).await;
        }
        store.scanned().await;
        if store.has_partial(id)
            && let Some(partial) = store.existing_partial(id, size_bytes).await
        {
            self.pin(id, ObjectPin::Partial(partial));
        }
    }

    /// Returns the number of files that have a reader.
    pub(in crate::dataset) fn readers(&self) -> usize {
        self.table.lock().readers
    }
}

impl Table {
    /// Drops one reference to an object; returns its entry if it was the last one.
    fn release(&mut self, id: ObjectId) -> Option<OpenObject> {
        match self.objects.get_mut(&id) {
            Some(object) if object.files > 1 => {
                object.files -= 1;
                None
            }
            _ => self.objects.remove(&id),
        }
    }
}

#[cfg(test)]
mod tests {
    use millpond_catalog::{Object, SourceInfo};
    use millpond_core::{Time, Validator};

    use super::super::object_state::BlockDestination;
    use super::*;
    use crate::dataset::sources::ObjectLocation;

    const A: ObjectId = ObjectId::from_bytes([1; 16]);
    const B: ObjectId = ObjectId::from_bytes([2; 16]);

    fn pin() -> (ObjectPin, Arc<File>) {
        let file = Arc::new(tempfile::tempfile().unwrap());
        (ObjectPin::File(Arc::clone(&file)), file)
    }

    fn state(id: ObjectId) -> Arc<ObjectState> {
        let object = Object {
            id,
            source: 0,
            key: "key".to_owned(),
            size_bytes: 1,
            validator: Validator::ETag("etag".to_owned()),
            modified: Time::default(),
        };
        let source = Arc::new(SourceInfo {
            id: "memory://".to_owned(),
            prefix: String::new(),
            path: String::new(),
        });
        let location = ObjectLocation { object, source };
        Arc::new(ObjectState::new(location, BlockDestination::Transient, 0))
    }

    #[test]
    fn an_object_is_pinned_until_its_last_file_is_closed() {
        let files = OpenFiles::default();
        let (first, file) = pin();
        assert!(!files.open(A, StreamId(1), None));
        files.pin(A, first);
        assert!(files.open(A, StreamId(2), None));
        // The same open again, after a restart of its request.
        assert!(files.open(A, StreamId(2), None));
        files.close(StreamId(1));
        files.close(StreamId(1));
        assert_eq!(Arc::strong_count(&file), 2);
        files.close(StreamId(2));
        assert_eq!(Arc::strong_count(&file), 1);
    }

    #[test]
    fn an_object_without_open_files_is_not_pinned() {
        let files = OpenFiles::default();
        let (pin, file) = pin();
        files.pin(A, pin);
        assert_eq!(Arc::strong_count(&file), 1);
    }

    #[test]
    fn a_reader_lives_from_the_first_read_of_its_file_to_the_close() {
        let files = OpenFiles::default();
        let object = state(A);
        files.open(A, StreamId(1), None);
        assert!(files.reader(A, StreamId(1)).is_none());
        let reader = files.start_reading(Arc::clone(&object), StreamId(1));
        assert!(Arc::ptr_eq(&reader, &files.reader(A, StreamId(1)).unwrap()));
        assert!(files.reader(B, StreamId(1)).is_none(), "another object");
        assert!(files.reader(A, StreamId(2)).is_none(), "another file");
        assert_eq!(files.readers(), 1);
        drop(reader);
        files.close(StreamId(1));
        assert_eq!((files.readers(), Arc::strong_count(&object)), (0, 1));
        assert!(files.table.lock().objects.is_empty());
    }

    #[test]
    fn a_file_that_is_read_without_a_reported_open_pins_nothing() {
        let files = OpenFiles::default();
        files.start_reading(state(A), StreamId(1));
        let (first, file) = pin();
        files.pin(A, first);
        assert_eq!(Arc::strong_count(&file), 1);
        // The report comes after the first read: the reader stays.
        let (second, file) = pin();
        assert!(files.open(A, StreamId(1), Some(second)));
        assert!(files.reader(A, StreamId(1)).is_some());
        files.close(StreamId(1));
        assert_eq!((files.readers(), Arc::strong_count(&file)), (0, 1));
    }

    #[test]
    fn two_first_reads_of_a_file_leave_one_reader() {
        let files = OpenFiles::default();
        let object = state(A);
        files.start_reading(Arc::clone(&object), StreamId(1));
        let later = files.start_reading(Arc::clone(&object), StreamId(1));
        assert!(Arc::ptr_eq(&later, &files.reader(A, StreamId(1)).unwrap()));
        assert_eq!(files.readers(), 1);
        drop(later);
        files.close(StreamId(1));
        assert_eq!((files.readers(), Arc::strong_count(&object)), (0, 1));
    }

    #[test]
    fn readers_beyond_the_limit_are_not_remembered() {
        let files = OpenFiles::default();
        let object = state(A);
        let last = u64::try_from(MAX_READERS).unwrap();
        for file in 0..=last {
            files.start_reading(Arc::clone(&object), StreamId(file));
        }
        assert_eq!(files.readers(), MAX_READERS);
        assert!(files.reader(A, StreamId(last)).is_none());
        assert!(files.reader(A, StreamId(0)).is_some());
    }
}
