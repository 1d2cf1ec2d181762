//! Publishes each new generation in the live tree.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use fuser::{INodeNo, Notifier};
use millpond_core::{CatalogFile, Generation};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::handler::RequestHandler;
use super::node::Node;
use super::session;

/// The task that publishes each new catalog in the mount.
pub(crate) struct LiveTreeUpdater {
    pub(crate) handler: Arc<RequestHandler>,
    pub(crate) catalogs: watch::Receiver<Option<Arc<CatalogFile>>>,
    pub(crate) notifier: Notifier,
    pub(crate) live: INodeNo,
    pub(crate) epochs: bool,
    /// The mount was taken over: its last server may have died before it notified the kernel of a generation.
    pub(crate) resumed: bool,
    /// The generation that new opens in the live tree see.
    pub(crate) live_generation: watch::Sender<Option<Generation>>,
}

impl LiveTreeUpdater {
    pub(crate) async fn run(mut self) {
        if self.resumed {
            let (handler, notifier) = (Arc::clone(&self.handler), self.notifier.clone());
            let (live, epochs) = (self.live, self.epochs);
            let invalidated =
                tokio::task::spawn_blocking(move || invalidate(&handler, &notifier, live, epochs)).await;
            if let Err(error) = invalidated.map_err(io::Error::other).flatten() {
                warn!(%error, "failed to invalidate the kernel's cache of the live tree after the takeover");
            }
        }
        while self.catalogs.changed().await.is_ok() {
            let Some(newest) = self.catalogs.borrow_and_update().clone() else {
                continue;
            };
            let handler = Arc::clone(&self.handler);
            let notifier = self.notifier.clone();
            let (live, epochs) = (self.live, self.epochs);
            // Opening a catalog reads the disk, and a notification waits for the kernel's locks.
            let published =
                tokio::task::spawn_blocking(move || publish(&handler, &newest, &notifier, live, epochs))
                    .await;
            match published {
                Ok(Some(generation)) => drop(self.live_generation.send_replace(Some(generation))),
                Ok(None) => {}
                Err(error) => error!(%error, "failed to publish a new catalog"),
            }
        }
    }
}

/// Publishes a catalog; returns its generation on success.
fn publish(
    handler: &RequestHandler,
    newest: &CatalogFile,
    notifier: &Notifier,
    live: INodeNo,
    epochs: bool,
) -> Option<Generation> {
    let generation = newest.generation;
    let in_use = generations_of(&handler.opens.open_nodes());
    if let Err(error) = handler.trees.catalogs.update(newest, &in_use) {
        error!(%generation, %error, "failed to open a new catalog; the live tree stays at the previous generation");
        return None;
    }
    match invalidate(handler, notifier, live, epochs) {
        Ok(()) => info!(%generation, "published a new generation in the live tree"),
        Err(error) => {
            warn!(%generation, %error, "failed to invalidate the kernel's cache of the live tree; old names stay until their TTL")
        }
    }
    Some(generation)
}

/// Invalidates what the kernel caches of the live tree.
fn invalidate(handler: &RequestHandler, notifier: &Notifier, live: INodeNo, epochs: bool) -> io::Result<()> {
    if epochs {
        session::invalidate_all_dentries(&handler.device)?;
    }
    // Attributes only: listings of the live root are never cached.
    match notifier.inval_inode(live, -1, 0) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The generations that these nodes belong to.
pub(crate) fn generations_of(nodes: &[u64]) -> BTreeSet<Generation> {
    nodes
        .iter()
        .filter_map(|node| match Node::unpack(*node)? {
            Node::Tree(generation, _) | Node::LiveTree(generation, _) => Some(generation),
            Node::Root | Node::Live | Node::Layer(_) | Node::LayerDirectory(..) | Node::Object(_) => None,
        })
        .collect()
}
