//! Interface of the node to a Dataset's workers.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use millpond_core::{TierDirectories, Views, Worker};
use tokio::sync::watch;

/// A Dataset that is open on this node.
#[derive(Clone, Debug)]
pub struct DatasetOnNode {
    /// Uid, checked to be a plain file name.
    pub uid: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Pool that caches it.
    pub pool: String,
    /// The Dataset's directories in this node's tiers, fastest first; none if this node was no member of the pool when
    /// the Dataset was opened. Derived from the plan alone, and fixed.
    pub tiers: Vec<TierDirectories>,
    /// Socket of its worker, if this node is a member: from the plan, as [`Self::tiers`].
    pub socket: Option<PathBuf>,
    /// Members of the pool, with changes.
    pub members: watch::Receiver<PoolOnNode>,
    /// Directory of this driver for copies of the Dataset's catalogs: `gen-N.erofs` and `gen-N.index`.
    pub directory: PathBuf,
}

/// Properties of a pool that a driver needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolOnNode {
    /// All workers, including this node's.
    pub members: Vec<MemberAddress>,
}

/// One worker of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberAddress {
    /// Name of its node.
    pub node: String,
    /// Data address, `address:port`; empty until it is known.
    pub address: String,
}

/// Connects Datasets to workers.
#[async_trait]
pub trait Workers: Send + Sync + 'static {
    /// Returns a worker for the Dataset, over this node's socket if there is one, else over a member elsewhere. The worker
    /// asks `views` to release objects.
    ///
    /// Never waits for the worker. Catalogs in the Dataset's directory are published immediately: without them open files
    /// cannot be served when a driver takes over.
    async fn worker(&self, dataset: DatasetOnNode, views: Arc<dyn Views>) -> Arc<dyn NodeWorker>;
}

/// A Dataset's worker, on this node or another.
#[async_trait]
pub trait NodeWorker: Worker {
    /// Checks that a worker can be reached; an error is one line.
    fn reachable(&self) -> Result<(), String>;

    /// Closes its connection; it serves no further requests.
    async fn close(&self);
}
