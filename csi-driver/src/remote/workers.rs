//! The lines of a node to its workers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use millpond_cluster::Identity;
use millpond_core::Views;
use tokio::sync::watch;
use tracing::error;

use super::dial::WorkerLocation;
use super::{RemoteOptions, RemoteWorker};
use crate::node::{DatasetOnNode, NodeWorker, Workers};

/// How long a question waits for a worker: as long as the keeper keeps the mounts of a dead driver.
const PATIENCE: Duration = Duration::from_secs(120);

/// After a directory that cannot be used.
const PAUSE: Duration = Duration::from_secs(1);

/// Makes each Dataset's line, in the name of one driver.
#[derive(Clone, Debug)]
pub struct RemoteWorkers {
    identity: watch::Receiver<Option<Arc<Identity>>>,
    /// Another one after each start.
    driver: u64,
}

impl RemoteWorkers {
    /// Lines over certificates as they come.
    pub fn new(identity: watch::Receiver<Option<Arc<Identity>>>) -> Self {
        Self {
            identity,
            driver: rand::random(),
        }
    }
}

#[async_trait]
impl Workers for RemoteWorkers {
    async fn worker(&self, dataset: DatasetOnNode, views: Arc<dyn Views>) -> Arc<dyn NodeWorker> {
        loop {
            let reach = match &dataset.socket {
                Some(socket) => WorkerLocation::Here(socket.clone()),
                None => WorkerLocation::Elsewhere {
                    pool: dataset.members.clone(),
                    identity: self.identity.clone(),
                },
            };
            let options = RemoteOptions {
                dataset_uid: dataset.uid.clone(),
                driver: self.driver,
                reach,
                tiers: dataset.tiers.clone(),
                copies: dataset.directory.clone(),
                patience: PATIENCE,
            };
            match RemoteWorker::start(options, Arc::clone(&views)) {
                Ok(worker) => return worker,
                Err(error) => {
                    error!(dataset = dataset.uid, %error, "failed to keep copies of catalogs: tries again")
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
