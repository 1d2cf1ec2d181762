//! A worker without sources, for tests of the FUSE server.
//!
//! An object's bytes follow from its id alone, so any process can compute them. Objects with a file below `objects/` are
//! complete; the others are served from memory, as slowly or as wrongly as a test requires.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "support for tests of this crate and of the driver, with self-explanatory names"
)]

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use millpond_catalog::{BuildOptions, Builder, Entry, Owner, SourceInfo};
use millpond_core::{
    CatalogFile, Data, Generation, LandOutcome, LocalCopy, ObjectRef, OpenCount, ReadError, ServedBytes,
    StreamId, TierDirectories, Worker,
};
use millpond_core::{ObjectId, Time, Validator};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};

/// The source of every test catalog.
pub const SOURCE: &str = "s3://bucket/data";

/// A fault of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Changed,
    Unavailable,
    Stopping,
    Short,
}

/// The options of the example `fuse-server`, which tests start and kill.
#[derive(Debug, Serialize, Deserialize)]
pub struct ServerOptions {
    pub directory: PathBuf,
    pub delay_ms: u64,
    pub passthrough: bool,
    pub idle: usize,
    /// Path and size of a file whose reads stay unanswered.
    pub stopping: Option<(String, u64)>,
    /// The generation that is the newest when the server starts.
    pub newest: u64,
}

/// One file of a test tree.
#[derive(Clone, Debug)]
pub struct TestFile {
    pub path: String,
    pub size: u64,
    pub etag: String,
}

impl TestFile {
    pub fn new(path: impl Into<String>, size: u64) -> Self {
        Self {
            path: path.into(),
            size,
            etag: "\"one\"".to_owned(),
        }
    }

    pub fn version(mut self, etag: &str) -> Self {
        self.etag = etag.to_owned();
        self
    }

    fn validator(&self) -> Validator {
        Validator::ETag(self.etag.clone())
    }

    pub fn id(&self) -> ObjectId {
        ObjectId::derive(
            SOURCE,
            &format!("data/{}", self.path),
            &self.validator(),
            self.size,
        )
    }

    pub fn content(&self, range: Range<u64>) -> Vec<u8> {
        content(self.id(), range.start..range.end.min(self.size))
    }

    pub fn whole(&self) -> Vec<u8> {
        self.content(0..self.size)
    }
}

/// The bytes of an object.
pub fn content(id: ObjectId, range: Range<u64>) -> Vec<u8> {
    let seed = u64::from_le_bytes(id.as_bytes()[..8].try_into().unwrap());
    let word = |index: u64| {
        let mixed = (seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ mixed >> 29).to_le_bytes()
    };
    let start = range.start / 8;
    let mut bytes = Vec::with_capacity(usize::try_from(range.end - range.start).unwrap() + 16);
    for index in start..range.end.div_ceil(8) {
        bytes.extend_from_slice(&word(index));
    }
    let skip = usize::try_from(range.start - start * 8).unwrap();
    let length = usize::try_from(range.end - range.start).unwrap();
    bytes[skip..skip + length].to_vec()
}

/// Writes a catalog of these files.
pub fn write_catalog(directory: &Path, generation: u64, files: &[TestFile]) -> Arc<CatalogFile> {
    let options = BuildOptions {
        sources: vec![SourceInfo {
            id: SOURCE.to_owned(),
            prefix: "data/".to_owned(),
            path: String::new(),
        }],
        owner: Owner::default(),
        created: Time {
            secs: 1_700_000_000,
            nanos: 0,
        },
        spill_directory: directory.to_owned(),
        memory_bytes: 8 << 20,
    };
    let mut builder = Builder::new(options).unwrap();
    for file in files {
        let entry = Entry {
            source: 0,
            key: format!("data/{}", file.path),
            size_bytes: file.size,
            modified: Time {
                secs: 1_600_000_000,
                nanos: 5,
            },
            validator: file.validator(),
        };
        builder.add(&entry).unwrap();
    }
    let image = directory.join(format!("gen-{generation}.erofs"));
    let index = directory.join(format!("gen-{generation}.index"));
    let summary = builder.finish(&image, &index).unwrap();
    assert_eq!(summary.files, files.len() as u64);
    Arc::new(CatalogFile {
        generation: Generation(generation),
        image,
        index,
    })
}

/// The worker.
pub struct FakeWorker {
    directory: PathBuf,
    catalogs: watch::Sender<Option<Arc<CatalogFile>>>,
    faults: Mutex<HashMap<ObjectId, Fault>>,
    delay: Duration,
    /// Closed while a test blocks all responses.
    gate: Semaphore,
    pub reads: AtomicU64,
    pub lands: AtomicU64,
    pub opened: AtomicU64,
    pub closed: Mutex<Vec<StreamId>>,
    /// The files that are open and were not closed.
    pub reading: Mutex<HashMap<StreamId, ObjectId>>,
}

impl FakeWorker {
    pub fn new(directory: &Path, newest: Option<Arc<CatalogFile>>, delay: Duration) -> Arc<Self> {
        Arc::new(Self {
            directory: directory.to_owned(),
            catalogs: watch::Sender::new(newest),
            faults: Mutex::default(),
            delay,
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            reads: AtomicU64::new(0),
            lands: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            closed: Mutex::default(),
            reading: Mutex::default(),
        })
    }

    pub fn show(&self, newest: Arc<CatalogFile>) {
        self.catalogs.send_replace(Some(newest));
    }

    pub fn fail(&self, id: ObjectId, fault: Option<Fault>) {
        match fault {
            Some(fault) => self.faults.lock().insert(id, fault),
            None => self.faults.lock().remove(&id),
        };
    }

    /// Makes a file complete.
    pub fn complete(&self, file: &TestFile) {
        complete(&self.directory, file);
    }

    /// Removes the object of a complete file.
    pub fn evict(&self, file: &TestFile) {
        std::fs::remove_file(object_path(&self.directory, file.id())).unwrap();
    }

    async fn check(&self, id: ObjectId) -> Result<(), ReadError> {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        let _open = self.gate.acquire().await;
        match self.faults.lock().get(&id) {
            Some(Fault::Changed) => Err(ReadError::Changed { id }),
            Some(Fault::Unavailable) => Err(ReadError::Unavailable {
                id,
                reason: "the test says so".to_owned(),
            }),
            Some(Fault::Stopping) => Err(ReadError::Stopping),
            Some(Fault::Short) | None => Ok(()),
        }
    }
}

/// Writes the complete object of `file` below `directory/objects`.
pub fn complete(directory: &Path, file: &TestFile) {
    let path = object_path(directory, file.id());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let whole = path.with_extension("new");
    std::fs::write(&whole, file.whole()).unwrap();
    std::fs::rename(whole, path).unwrap();
}

pub fn object_path(directory: &Path, id: ObjectId) -> PathBuf {
    directory.join("objects").join(id.path())
}

#[async_trait]
impl Worker for FakeWorker {
    fn catalogs(&self) -> watch::Receiver<Option<Arc<CatalogFile>>> {
        self.catalogs.subscribe()
    }

    fn tiers(&self) -> Vec<TierDirectories> {
        vec![TierDirectories {
            objects: self.directory.join("objects"),
            landing: self.directory.join("landing"),
        }]
    }

    async fn fetch_to_landing(&self, object: ObjectRef) -> Result<LandOutcome, ReadError> {
        self.lands.fetch_add(1, Ordering::Relaxed);
        self.check(object.id).await?;
        // Complete objects count as small ones that were just fetched.
        let here = object_path(&self.directory, object.id).exists();
        Ok(if here {
            LandOutcome::Landed
        } else {
            LandOutcome::ThroughFuse
        })
    }

    async fn open_local(&self, object: ObjectRef) -> Result<LocalCopy, ReadError> {
        match File::open(object_path(&self.directory, object.id)) {
            Ok(file) => Ok(LocalCopy::Complete(Arc::new(file))),
            Err(_) => Ok(LocalCopy::Incomplete),
        }
    }

    async fn read(&self, object: ObjectRef, _stream: StreamId, range: Range<u64>) -> Result<Data, ReadError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.check(object.id).await?;
        let mut bytes = content(object.id, range.start..range.end.min(object.size_bytes));
        if self.faults.lock().get(&object.id) == Some(&Fault::Short) {
            bytes.pop();
        }
        let served = ServedBytes {
            origin_bytes: bytes.len() as u64,
            ..ServedBytes::default()
        };
        Ok(Data::Bytes(bytes.into(), served))
    }

    fn file_opened(&self, object: ObjectRef, stream: StreamId, _complete: Option<Arc<File>>) {
        self.reading.lock().insert(stream, object.id);
    }

    fn file_closed(&self, _object: ObjectRef, stream: StreamId) {
        self.reading.lock().remove(&stream);
        self.closed.lock().push(stream);
    }

    async fn is_complete(&self, object: ObjectRef) -> bool {
        object_path(&self.directory, object.id).exists()
    }

    fn count_kernel_opens(&self, opens: &[OpenCount]) {
        self.opened
            .fetch_add(opens.iter().map(|opened| opened.times).sum(), Ordering::Relaxed);
    }

    fn retain_generations(&self, _generations: &BTreeSet<Generation>) {}
}

#[cfg(test)]
mod tests {
    use millpond_core::Inode;
    use millpond_core::conformance::{self, Sample, WorkerFixture};
    use tempfile::TempDir;

    use super::*;

    #[tokio::test]
    async fn the_fake_does_what_every_worker_must() {
        let directory = TempDir::new().unwrap();
        let files = [
            TestFile::new("complete", 100_000),
            TestFile::new("missing", 300_001),
        ];
        let catalog = write_catalog(directory.path(), 1, &files);
        let worker = FakeWorker::new(directory.path(), Some(catalog), Duration::ZERO);
        worker.complete(&files[0]);
        let [complete, missing] = files.map(|file| Sample {
            object: ObjectRef {
                generation: Generation(1),
                inode: Inode(0),
                id: file.id(),
                size_bytes: file.size,
            },
            content: file.whole().into(),
        });
        let fixture = WorkerFixture {
            worker: &*worker,
            complete,
            missing,
            unknown: None,
        };
        conformance::worker(&fixture).await;
    }
}
