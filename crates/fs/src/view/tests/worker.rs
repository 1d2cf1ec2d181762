//! A worker that records what the views report to it.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use millpond_core::{
    CatalogFile, Data, Generation, LandOutcome, LocalCopy, ObjectId, ObjectRef, OpenCount, ReadError,
    StreamId, TierDirectories, Worker,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::fixture::Fixture;

pub(super) struct RecordingWorker {
    sizes: HashMap<ObjectId, u64>,
    opens: Mutex<Vec<OpenCount>>,
    pub(super) retained: Mutex<Vec<BTreeSet<Generation>>>,
}

impl RecordingWorker {
    pub(super) fn new(fixture: &Fixture) -> Arc<Self> {
        let files = fixture.files.iter();
        Arc::new(Self {
            sizes: files.map(|file| (file.id, file.content.len() as u64)).collect(),
            opens: Mutex::default(),
            retained: Mutex::default(),
        })
    }

    /// The opens that the kernel served alone.
    pub(super) fn opens(&self) -> u64 {
        self.opens.lock().iter().map(|open| open.times).sum()
    }

    /// The sizes of the files so opened.
    pub(super) fn bytes(&self) -> u64 {
        let opens = self.opens.lock();
        opens.iter().map(|open| open.times * self.sizes[&open.id]).sum()
    }
}

#[async_trait]
impl Worker for RecordingWorker {
    fn catalogs(&self) -> watch::Receiver<Option<Arc<CatalogFile>>> {
        watch::channel(None).1
    }

    fn tiers(&self) -> Vec<TierDirectories> {
        Vec::new()
    }

    async fn fetch_to_landing(&self, _object: ObjectRef) -> Result<LandOutcome, ReadError> {
        Err(ReadError::Stopping)
    }

    async fn open_local(&self, _object: ObjectRef) -> Result<LocalCopy, ReadError> {
        Err(ReadError::Stopping)
    }

    async fn read(
        &self,
        _object: ObjectRef,
        _stream: StreamId,
        _range: Range<u64>,
    ) -> Result<Data, ReadError> {
        Err(ReadError::Stopping)
    }

    fn file_opened(&self, _object: ObjectRef, _stream: StreamId, _complete: Option<Arc<std::fs::File>>) {}

    fn file_closed(&self, _object: ObjectRef, _stream: StreamId) {}

    async fn is_complete(&self, _object: ObjectRef) -> bool {
        false
    }

    fn count_kernel_opens(&self, opens: &[OpenCount]) {
        self.opens.lock().extend(opens);
    }

    fn retain_generations(&self, generations: &BTreeSet<Generation>) {
        self.retained.lock().push(generations.clone());
    }
}
