//! Shows each new generation in the live tree.

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

/// Brings each new catalog into the mount.
pub(crate) struct LiveTreeUpdater {
    pub(crate) pond: Arc<RequestHandler>,
    pub(crate) catalogs: watch::Receiver<Option<Arc<CatalogFile>>>,
    pub(crate) notifier: Notifier,
    pub(crate) live: INodeNo,
    pub(crate) epochs: bool,
    /// The mount was taken over: its last server may have died with a generation that the kernel was never told of.
    pub(crate) resumed: bool,
    /// The generation that new opens in the live tree see.
    pub(crate) shown: watch::Sender<Option<Generation>>,
}

impl LiveTreeUpdater {
    pub(crate) async fn run(mut self) {
        if self.resumed {
            let (pond, notifier) = (Arc::clone(&self.pond), self.notifier.clone());
            let (live, epochs) = (self.live, self.epochs);
            let told = tokio::task::spawn_blocking(move || tell(&pond, &notifier, live, epochs)).await;
            if let Err(error) = told.map_err(io::Error::other).flatten() {
                warn!(%error, "failed to tell the kernel of what the mount shows");
            }
        }
        while self.catalogs.changed().await.is_ok() {
            let Some(newest) = self.catalogs.borrow_and_update().clone() else {
                continue;
            };
            let pond = Arc::clone(&self.pond);
            let notifier = self.notifier.clone();
            let (live, epochs) = (self.live, self.epochs);
            // Opening a catalog reads the disk, and the kernel may take its time over a notification.
            let shown =
                tokio::task::spawn_blocking(move || show(&pond, &newest, &notifier, live, epochs)).await;
            match shown {
                Ok(Some(generation)) => drop(self.shown.send_replace(Some(generation))),
                Ok(None) => {}
                Err(error) => error!(%error, "failed to show a new catalog"),
            }
        }
    }
}

/// Shows a catalog; its generation, if it is shown now.
fn show(
    pond: &RequestHandler,
    newest: &CatalogFile,
    notifier: &Notifier,
    live: INodeNo,
    epochs: bool,
) -> Option<Generation> {
    let generation = newest.generation;
    let in_use = generations_of(&pond.opens.open_nodes());
    if let Err(error) = pond.trees.catalogs.update(newest, &in_use) {
        error!(%generation, %error, "failed to open a new catalog: the live tree stays as it was");
        return None;
    }
    match tell(pond, notifier, live, epochs) {
        Ok(()) => info!(%generation, "the live tree shows a new generation"),
        Err(error) => warn!(%generation, %error, "failed to tell the kernel of a new generation"),
    }
    Some(generation)
}

/// Makes the kernel ask again for what it knows of the live tree.
fn tell(pond: &RequestHandler, notifier: &Notifier, live: INodeNo, epochs: bool) -> io::Result<()> {
    if epochs {
        session::invalidate_all_dentries(&pond.device)?;
    }
    // Only its attributes: listings of the live root are never cached.
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
