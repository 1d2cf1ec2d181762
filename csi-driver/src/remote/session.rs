//! Stream of notices between a driver and a worker.

use std::sync::Arc;
use std::time::Duration;

use millpond_core::Views;
use millpond_wire::convert;
use millpond_wire::worker as wire;
use millpond_wire::worker::worker_client::WorkerClient;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tracing::{debug, info, warn};
use wire::announcement::Announcement;
use wire::notice::Notice as Kind;

use super::copies::Copies;
use super::dial::WorkerLocation;
use super::notices::{Next, Notices};

/// Longest backoff: a killed worker restarts within seconds, and readers wait for it.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Most queued notices.
const NOTICE_QUEUE_CAPACITY: usize = 64;

/// Delay before a failed copy of a catalog is retried.
const COPY_RETRY_DELAY: Duration = Duration::from_secs(5);

/// Task that maintains the connection to a worker.
pub(super) struct WorkerSession {
    pub(super) caller: wire::Caller,
    pub(super) reach: WorkerLocation,
    /// Receives the connected client.
    pub(super) clients: watch::Sender<Option<WorkerClient<Channel>>>,
    pub(super) notices: Arc<Notices>,
    pub(super) copies: Arc<Copies>,
    pub(super) views: Arc<dyn Views>,
}

impl WorkerSession {
    pub(super) async fn run(mut self) {
        let mut delays = millpond_process::backoff(BACKOFF_MIN, BACKOFF_MAX);
        loop {
            match self.reach.dial().await {
                Ok(client) => {
                    debug!(dataset = %self.caller.dataset_uid, "connected to a worker");
                    if self.serve(client).await {
                        delays = millpond_process::backoff(BACKOFF_MIN, BACKOFF_MAX);
                    }
                    self.clients.send_replace(None);
                }
                Err(error) => {
                    debug!(dataset = %self.caller.dataset_uid, %error, "failed to connect to a worker; retrying")
                }
            }
            let delay = delays.next().unwrap_or(BACKOFF_MAX);
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.reach.moved() => {}
            }
        }
    }

    /// Serves one stream to its end; returns whether it was opened.
    async fn serve(&mut self, mut client: WorkerClient<Channel>) -> bool {
        let (sender, notices) = mpsc::channel(NOTICE_QUEUE_CAPACITY);
        let hello = wire::Hello {
            caller: Some(self.caller.clone()),
        };
        if sender.send(notice(Kind::Hello(hello))).await.is_err() {
            return false;
        }
        let mut announcements = match client.attend(ReceiverStream::new(notices)).await {
            Ok(response) => response.into_inner(),
            Err(status) => {
                debug!(dataset = %self.caller.dataset_uid, reason = status.message(), "a worker refused the session; retrying");
                return false;
            }
        };
        for notice in self.notices.everything() {
            if sender.send(notice).await.is_err() {
                return true;
            }
        }
        self.clients.send_replace(Some(client.clone()));
        let mut releases = JoinSet::new();
        let (catalogs, wanted) = watch::channel(None);
        let mut copying = JoinSet::new();
        copying.spawn(copy_catalogs(
            client,
            self.caller.clone(),
            Arc::clone(&self.copies),
            wanted,
        ));
        loop {
            tokio::select! {
                message = announcements.message() => match message.map(|message| message.map(|message| message.announcement)) {
                    Ok(Some(Some(Announcement::Catalog(new)))) => drop(catalogs.send_replace(Some(new))),
                    Ok(Some(Some(Announcement::Release(release)))) => {
                        releases.spawn(release_objects(Arc::clone(&self.views), release, sender.clone()));
                    }
                    Ok(Some(None)) => {}
                    Ok(None) => return true,
                    Err(status) => {
                        info!(dataset = %self.caller.dataset_uid, reason = status.message(), "worker disconnected; reconnecting");
                        return true;
                    }
                },
                next = self.notices.next() => {
                    let Next::Send(notices) = next else { return true };
                    for notice in notices {
                        if sender.send(notice).await.is_err() {
                            return true;
                        }
                    }
                }
                Some(_done) = releases.join_next() => {}
            }
        }
    }
}

fn notice(kind: Kind) -> wire::Notice {
    wire::Notice { notice: Some(kind) }
}

/// Makes the views release objects, and notifies the worker.
async fn release_objects(views: Arc<dyn Views>, release: wire::Release, sender: mpsc::Sender<wire::Notice>) {
    let wire::Release { round, ids } = release;
    let ids: Result<Vec<_>, _> = ids.iter().map(|id| convert::id(id)).collect();
    let failure = match ids {
        Ok(ids) => views.release(&ids).await.err().map(|error| error.to_string()),
        Err(error) => Some(error.to_string()),
    };
    let released = wire::Released {
        round,
        failure: failure.unwrap_or_default(),
    };
    // A disconnected worker requests it again.
    let _gone = sender.send(notice(Kind::Released(released))).await;
}

/// Copies each new catalog; of several announced meanwhile only the newest.
async fn copy_catalogs(
    client: WorkerClient<Channel>,
    caller: wire::Caller,
    copies: Arc<Copies>,
    mut wanted: watch::Receiver<Option<wire::NewCatalog>>,
) {
    while wanted.changed().await.is_ok() {
        loop {
            let Some(new) = *wanted.borrow_and_update() else {
                break;
            };
            let generation = new.generation;
            match copies.take(client.clone(), &caller, new).await {
                Ok(()) => break,
                Err(error) => {
                    warn!(dataset = %caller.dataset_uid, generation, %error, "failed to copy a catalog; retrying");
                    // A newer one may have been announced by then.
                    let _newer = tokio::time::timeout(COPY_RETRY_DELAY, wanted.changed()).await;
                }
            }
        }
    }
}
