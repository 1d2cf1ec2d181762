//! A Dataset's worker as its FUSE mount sees it: objects that were read through FUSE until they were whole become native
//! by a remount some time after they were closed.

use std::collections::BTreeSet;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use millpond_core::{
    CatalogFile, Data, Generation, Landed, Local, ObjectRef, Opened, ReadError, StreamId, TierDirectories,
    Worker,
};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::workers::NodeWorker;
use millpond_fs::view::Registry;

pub(crate) struct SettlingWorker {
    pub(crate) worker: Arc<dyn NodeWorker>,
    pub(crate) registry: Registry,
    pub(crate) runtime: Handle,
    /// Ends with the Dataset.
    pub(crate) tasks: TaskTracker,
}

#[async_trait]
impl Worker for SettlingWorker {
    fn catalogs(&self) -> watch::Receiver<Option<Arc<CatalogFile>>> {
        self.worker.catalogs()
    }

    fn tiers(&self) -> Vec<TierDirectories> {
        self.worker.tiers()
    }

    async fn land(&self, object: ObjectRef) -> Result<Landed, ReadError> {
        self.worker.land(object).await
    }

    async fn local(&self, object: ObjectRef) -> Result<Local, ReadError> {
        self.worker.local(object).await
    }

    async fn read(&self, object: ObjectRef, stream: StreamId, range: Range<u64>) -> Result<Data, ReadError> {
        self.worker.read(object, stream, range).await
    }

    fn reading(&self, object: ObjectRef, stream: StreamId, complete: Option<Arc<File>>) {
        self.worker.reading(object, stream, complete);
    }

    fn closed(&self, object: ObjectRef, stream: StreamId) {
        self.worker.closed(object, stream);
        let (worker, registry) = (Arc::clone(&self.worker), self.registry.clone());
        let settle = async move {
            if worker.has(object).await {
                registry.settled(object.id, object.size_bytes);
            }
        };
        drop(self.tasks.spawn_on(settle, &self.runtime));
    }

    fn opened(&self, opens: &[Opened]) {
        self.worker.opened(opens);
    }

    fn in_use(&self, generations: &BTreeSet<Generation>) {
        self.worker.in_use(generations);
    }
}
