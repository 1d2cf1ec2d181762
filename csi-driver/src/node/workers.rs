//! Who has a Dataset's objects, as the rest of the node sees it.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use millpond_core::{TierDirectories, Views, Worker};
use tokio::sync::watch;

/// A Dataset that is shown on this node.
#[derive(Clone, Debug)]
pub struct DatasetOnNode {
    /// Its uid, checked to be a plain file name.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The pool that holds it.
    pub pool: String,
    /// The Dataset's directories in this node's tiers, fastest first; none where this node was no member of the pool when
    /// the Dataset came to be shown. They follow from the plan alone, and stay what they are.
    pub tiers: Vec<TierDirectories>,
    /// Where its worker's socket is, if this node is a member: from the plan, as [`Self::tiers`].
    pub socket: Option<PathBuf>,
    /// The pool's members, now and later.
    pub members: watch::Receiver<PoolOnNode>,
    /// This driver's own directory for copies of the Dataset's catalogs: `gen-N.erofs` and `gen-N.index`.
    pub directory: PathBuf,
}

/// A pool as far as a driver needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolOnNode {
    /// All workers, this node's among them.
    pub members: Vec<MemberAddress>,
}

/// One worker of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberAddress {
    /// The name of its node.
    pub node: String,
    /// Its data port, `address:port`; empty until it is known.
    pub address: String,
}

/// Makes the lines to workers.
#[async_trait]
pub trait Workers: Send + Sync + 'static {
    /// A worker for the Dataset, over this node's socket if there is one, else over a member elsewhere. `views` is what
    /// the worker asks to let go of objects.
    ///
    /// Never waits for the worker to be there. Catalogs that are in the Dataset's directory are shown at once: without
    /// them files that are open cannot be served when a driver takes over.
    async fn worker(&self, dataset: DatasetOnNode, views: Arc<dyn Views>) -> Arc<dyn NodeWorker>;
}

/// A Dataset's worker, wherever it runs.
#[async_trait]
pub trait NodeWorker: Worker {
    /// Whether it can be reached now; an error says in one line what is wrong.
    fn reachable(&self) -> Result<(), String>;

    /// Ends its connection; nothing is served any more.
    async fn close(&self);
}
