//! A worker in another process, as the driver's own [`Worker`].
//!
//! - [`dial`]: how the worker is reached: over its socket on this node, or one of the pool's members over the network.
//! - [`session`]: the stream on which both tell each other what happens: it lives as long as the link does.
//! - [`notices`]: what the worker has to know of this driver, so that a worker that has just started learns all of it.
//! - [`objects`]: complete objects in this node's tiers, which need no question.
//! - [`copies`]: this node's copies of the catalogs, strictly checked before anything reads them.
//! - [`readahead`]: what a reader in small steps asks for next.
//! - [`request`]: questions, repeated until a worker answers or the patience is over.
//!
//! Invariants:
//! - A worker that dies costs its readers a pause: every question can be asked again of the next one.
//! - No path that a worker says is ever opened: objects are found in the directories that the driver was given.
//! - Where there is no worker on this node nothing is landed, and all reads go over the network.

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

/// How to reach the worker of a Dataset.
pub struct RemoteOptions {
    /// The Dataset's uid.
    pub dataset_uid: String,
    /// This driver's number: another one after each start.
    pub driver: u64,
    /// Where the worker is.
    pub reach: WorkerLocation,
    /// The tiers' directories on this node, fastest first; none where no worker is.
    pub tiers: Vec<TierDirectories>,
    /// A directory of this Dataset's own for copies of its catalogs.
    pub copies: PathBuf,
    /// How long a question waits for a worker that answers.
    pub patience: Duration,
}

/// See the module's documentation.
pub struct RemoteWorker {
    objects: Objects,
    copies: Arc<Copies>,
    notices: Arc<Notices>,
    ahead: Ahead,
    asking: RetryingClient,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl RemoteWorker {
    /// Begins to reach the worker; does not wait for it. The newest catalog that was copied before is there at once.
    /// Must be called within a tokio runtime. `views` is what the worker asks to let go of objects.
    ///
    /// # Errors
    /// The directory for copies cannot be used.
    pub fn start(options: RemoteOptions, views: Arc<dyn Views>) -> Result<Arc<Self>, CopyError> {
        let RemoteOptions {
            dataset_uid,
            driver,
            reach,
            tiers,
            copies,
            patience,
        } = options;
        let copies = Arc::new(Copies::open(copies)?);
        let notices = Arc::new(Notices::default());
        let caller = wire::Caller { dataset_uid, driver };
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (clients, client) = watch::channel(None);
        let attending = WorkerSession {
            caller: caller.clone(),
            reach,
            clients,
            notices: Arc::clone(&notices),
            copies: Arc::clone(&copies),
            views,
        };
        let ended = stop.clone();
        tasks.spawn(async move { ended.run_until_cancelled(attending.keep()).await });
        Ok(Arc::new(Self {
            objects: Objects::new(tiers),
            copies,
            notices,
            ahead: Ahead::default(),
            asking: RetryingClient {
                caller,
                client,
                patience,
                stop: stop.clone(),
            },
            tasks,
            stop,
        }))
    }

    /// Counts an open that this driver answered without a question.
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
        if self.objects.are_kept() {
            self.asking.land(object).await
        } else {
            Ok(LandOutcome::ThroughFuse)
        }
    }

    async fn open_local(&self, object: ObjectRef) -> Result<LocalCopy, ReadError> {
        if let Some(file) = self.objects.find(object.id, object.size_bytes).await {
            self.found(object.id);
            return Ok(LocalCopy::Complete(Arc::new(file)));
        }
        // It may have to be checked first, or be evicted in between.
        if self.objects.are_kept()
            && self.asking.local(object).await?
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
        if let Some(data) = self.ahead.find(stream, &range) {
            return Ok(data);
        }
        let wide = self.ahead.widen(stream, &range, object.size_bytes);
        let start = wide.start;
        let data = self.asking.read(object, stream, wide).await?;
        let kept = self.ahead.keep(stream, start, data, &range);
        kept.ok_or_else(|| ReadError::Unavailable {
            id: object.id,
            reason: "the worker sent less than was asked for".to_owned(),
        })
    }

    fn file_opened(&self, object: ObjectRef, stream: StreamId, _complete: Option<Arc<File>>) {
        // The driver holds the file itself, which the worker's lease respects.
        self.notices.reading(object, stream);
    }

    fn file_closed(&self, object: ObjectRef, stream: StreamId) {
        self.ahead.forget(stream);
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
        match &*self.asking.client.borrow() {
            Some(_connected) => Ok(()),
            None => Err("no worker of the pool can be reached from this node".to_owned()),
        }
    }

    /// What is asked from then on is answered with [`ReadError::Stopping`].
    async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
