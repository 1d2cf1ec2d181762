//! Client of a worker in another process, as a [`Worker`].
//!
//! - [`dial`]: connects to the worker: over its socket on this node, or to one of the pool's members over the network.
//! - [`session`]: the stream of notices in both directions: it lives as long as the connection.
//! - [`notices`]: the state of this driver that the worker needs; a worker that has just started receives all of it.
//! - [`objects`]: complete objects in this node's tiers, which need no request.
//! - [`copies`]: this node's copies of the catalogs, strictly checked before anything reads them.
//! - [`readahead`]: readahead for readers in small steps.
//! - [`request`]: requests, retried until a worker responds or the timeout ends.
//!
//! Invariants:
//! - A worker that exits only delays its readers: every request can be retried with the next worker.
//! - No path sent by a worker is ever opened: objects are found in the directories of the driver's options.
//! - Without a worker on this node nothing is landed, and all reads go over the network.

mod copies;
mod dial;
mod notices;
mod objects;
mod readahead;
mod request;
mod session;
mod workers;

use std::collections::BTreeSet;
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use millpond_core::ObjectId;
use millpond_core::{
    CatalogFile, Data, Generation, LandOutcome, LocalCopy, ObjectRef, OpenCount, ReadError, ServedBytes,
    StreamId, TierDirectories, Views, Worker,
};
use millpond_wire::worker as wire;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use copies::Copies;
use notices::Notices;
use objects::Objects;
use readahead::Ahead;
use request::RetryingClient;
use session::WorkerSession;

use crate::node::NodeWorker;

pub use copies::CopyError;
pub use dial::WorkerLocation;
pub use workers::RemoteWorkers;

/// Options of [`RemoteWorker::start`].
pub struct RemoteOptions {
    /// Uid of the Dataset.
    pub dataset_uid: String,
    /// Id of this driver, different after each start.
    pub driver: u64,
    /// Location of the worker.
    pub reach: WorkerLocation,
    /// The tiers' directories on this node, fastest first; none without a worker on this node.
    pub tiers: Vec<TierDirectories>,
    /// Directory for copies of this Dataset's catalogs.
    pub copies: PathBuf,
    /// How long a request waits for a worker that responds.
    pub timeout: Duration,
}

/// Client of a Dataset's worker.
pub struct RemoteWorker {
    objects: Objects,
    copies: Arc<Copies>,
    notices: Arc<Notices>,
    readahead: Ahead,
    client: RetryingClient,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl RemoteWorker {
    /// Starts to connect to the worker; does not wait for it. The newest catalog copied before is available immediately.
    /// Must be called within a tokio runtime. The worker asks `views` to release objects.
    ///
    /// # Errors
    /// If the directory for copies cannot be used.
    pub fn start(options: RemoteOptions, views: Arc<dyn Views>) -> Result<Arc<Self>, CopyError> {
        let RemoteOptions {
            dataset_uid,
            driver,
            reach,
            tiers,
            copies,
            timeout,
        } = options;
        let copies = Arc::new(Copies::open(copies)?);
        let notices = Arc::new(Notices::default());
        let caller = wire::Caller { dataset_uid, driver };
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (clients, client) = watch::channel(None);
        let session = WorkerSession {
            caller: caller.clone(),
            reach,
            clients,
            notices: Arc::clone(&notices),
            copies: Arc::clone(&copies),
            views,
        };
        let ended = stop.clone();
        tasks.spawn(async move { ended.run_until_cancelled(session.run()).await });
        Ok(Arc::new(Self {
            objects: Objects::new(tiers),
            copies,
            notices,
            readahead: Ahead::default(),
            client: RetryingClient {
                caller,
                client,
                timeout,
                stop: stop.clone(),
            },
            tasks,
            stop,
        }))
    }

    /// Counts an open that this driver served without a request.
    fn found(&self, id: ObjectId) {
        self.notices.opened(&[OpenCount { id, times: 1 }]);
    }
}

#[async_trait]
impl Worker for RemoteWorker {
    fn catalogs(&self) -> watch::Receiver<Option<Arc<CatalogFile>>> {
        self.copies.watch()
    }

    fn tiers(&self) -> Vec<TierDirectories> {
        self.objects.directories()
    }

    async fn fetch_to_landing(&self, object: ObjectRef) -> Result<LandOutcome, ReadError> {
        if self.objects.has_tiers() {
            self.client.land(object).await
        } else {
            Ok(LandOutcome::ThroughFuse)
        }
    }

    async fn open_local(&self, object: ObjectRef) -> Result<LocalCopy, ReadError> {
        if let Some(file) = self.objects.find(object.id, object.size_bytes).await {
            self.found(object.id);
            return Ok(LocalCopy::Complete(Arc::new(file)));
        }
        // The worker may have to verify it first, or evict it in between.
        if self.objects.has_tiers()
            && self.client.local(object).await?
            && let Some(file) = self.objects.find(object.id, object.size_bytes).await
        {
            return Ok(LocalCopy::Complete(Arc::new(file)));
        }
        Ok(LocalCopy::Incomplete)
    }

    async fn read(&self, object: ObjectRef, stream: StreamId, range: Range<u64>) -> Result<Data, ReadError> {
        let range = range.start..range.end.min(object.size_bytes);
        if range.is_empty() {
            return Ok(Data::Bytes(Bytes::new(), ServedBytes::default()));
        }
        if let Some(data) = self.readahead.find(stream, &range) {
            return Ok(data);
        }
        let wide = self.readahead.widen(stream, &range, object.size_bytes);
        let start = wide.start;
        let data = self.client.read(object, stream, wide).await?;
        let data = self.readahead.store(stream, start, data, &range);
        data.ok_or_else(|| ReadError::Unavailable {
            id: object.id,
            reason: "the worker sent fewer bytes than requested".to_owned(),
        })
    }

    fn file_opened(&self, object: ObjectRef, stream: StreamId, _complete: Option<Arc<File>>) {
        // The driver holds the file open, which the worker's lease respects.
        self.notices.reading(object, stream);
    }

    fn file_closed(&self, object: ObjectRef, stream: StreamId) {
        self.readahead.forget(stream);
        self.notices.closed(object, stream);
    }

    async fn is_complete(&self, object: ObjectRef) -> bool {
        self.objects.find(object.id, object.size_bytes).await.is_some()
    }

    fn count_kernel_opens(&self, opens: &[OpenCount]) {
        self.notices.opened(opens);
    }

    fn retain_generations(&self, generations: &BTreeSet<Generation>) {
        self.notices.in_use(generations);
        self.copies.in_use(generations);
    }
}

#[async_trait]
impl NodeWorker for RemoteWorker {
    fn reachable(&self) -> Result<(), String> {
        match &*self.client.client.borrow() {
            Some(_connected) => Ok(()),
            None => Err("no worker of the pool can be reached from this node".to_owned()),
        }
    }

    /// Later requests fail with [`ReadError::Stopping`].
    async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
