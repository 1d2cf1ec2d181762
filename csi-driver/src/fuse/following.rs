//! Shows each new generation in the live tree.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use fuser::{INodeNo, Notifier};
use protocol::{CatalogFile, Generation};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::node::Node;
use super::serve::Pond;
use super::session;

/// Brings each new catalog into the mount.
pub(crate) struct Following {
    pub(crate) pond: Arc<Pond>,
    pub(crate) catalogs: watch::Receiver<Option<Arc<CatalogFile>>>,
    pub(crate) notifier: Notifier,
    pub(crate) live: INodeNo,
    pub(crate) epochs: bool,
}

impl Following {
    pub(crate) async fn run(mut self) {
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
            if let Err(error) = shown {
                error!(%error, "failed to show a new catalog");
            }
        }
    }
}

fn show(pond: &Pond, newest: &CatalogFile, notifier: &Notifier, live: INodeNo, epochs: bool) {
    let generation = newest.generation;
    let in_use = generations_of(&pond.opens.open_nodes());
    if let Err(error) = pond.trees.catalogs.update(newest, &in_use) {
        error!(%generation, %error, "failed to open a new catalog: the live tree stays as it was");
        return;
    }
    let told = if epochs {
        session::begin_epoch(&pond.device)
    } else {
        Ok(())
    };
    // Only its attributes: listings of the live root are never cached.
    let told = told.and_then(|()| match notifier.inval_inode(live, -1, 0) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    });
    match told {
        Ok(()) => info!(%generation, "the live tree shows a new generation"),
        Err(error) => warn!(%generation, %error, "failed to tell the kernel of a new generation"),
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
