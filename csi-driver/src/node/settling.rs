//! A Dataset's worker as its FUSE mount sees it: objects that were read through FUSE until they were whole become native
//! by a remount some time after they were closed.

use std::collections::BTreeSet;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use millpond_core::{
    CatalogFile, Data, Generation, LandOutcome, LocalCopy, ObjectRef, OpenCount, ReadError, StreamId,
    TierDirectories, Worker,
};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::workers::NodeWorker;
use millpond_fs::view::Registry;

pub(crate) struct NativeRemountWorker {
    pub(crate) worker: Arc<dyn NodeWorker>,
    pub(crate) registry: Registry,
    pub(crate) runtime: Handle,
    /// Ends with the Dataset.
    pub(crate) tasks: TaskTracker,
}

#[async_trait]
impl Worker for NativeRemountWorker {
    fn catalogs(&self) -> watch::Receiver<Option<Arc<CatalogFile>>> {
        self.worker.catalogs()
    }

    fn tiers(&self) -> Vec<TierDirectories> {
        self.worker.tiers()
    }

    async fn fetch_to_landing(&self, object: ObjectRef) -> Result<LandOutcome, ReadError> {
        self.worker.fetch_to_landing(object).await
    }

    async fn open_local(&self, object: ObjectRef) -> Result<LocalCopy, ReadError> {
        self.worker.open_local(object).await
    }

    async fn read(&self, object: ObjectRef, stream: StreamId, range: Range<u64>) -> Result<Data, ReadError> {
        self.worker.read(object, stream, range).await
    }

    fn file_opened(&self, object: ObjectRef, stream: StreamId, complete: Option<Arc<File>>) {
        self.worker.file_opened(object, stream, complete);
    }

    fn file_closed(&self, object: ObjectRef, stream: StreamId) {
        self.worker.file_closed(object, stream);
        let (worker, registry) = (Arc::clone(&self.worker), self.registry.clone());
        let settle = async move {
            if worker.has(object).await {
                registry.object_completed(object.id, object.size_bytes);
            }
        };
        drop(self.tasks.spawn_on(settle, &self.runtime));
    }

    fn count_kernel_opens(&self, opens: &[OpenCount]) {
        self.worker.count_kernel_opens(opens);
    }

    fn retain_generations(&self, generations: &BTreeSet<Generation>) {
        self.worker.retain_generations(generations);
    }
}
