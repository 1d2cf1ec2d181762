//! Connections of a node's Datasets to workers.

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

/// How long a request waits for a worker: as long as the keeper keeps the mounts of a dead driver.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// Delay before a failed directory is tried again.
const COPIES_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Connects each Dataset of one driver to its worker.
#[derive(Clone, Debug)]
pub struct RemoteWorkers {
    identity: watch::Receiver<Option<Arc<Identity>>>,
    /// Id of this driver, different after each start.
    driver: u64,
}

impl RemoteWorkers {
    /// Creates connections that use the newest certificate of `identity`.
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
                timeout: REQUEST_TIMEOUT,
            };
            match RemoteWorker::start(options, Arc::clone(&views)) {
                Ok(worker) => return worker,
                Err(error) => {
                    error!(dataset = dataset.uid, %error, "failed to use the directory for copies of catalogs; retrying")
                }
            }
            tokio::time::sleep(COPIES_RETRY_DELAY).await;
        }
    }
}
