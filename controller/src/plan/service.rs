//! Tells node processes their plan, and takes their reports.
//!
//! Who asks is known by the certificate alone. A worker also says its pool; it is believed where one of that pool's worker
//! pods is on its node. A process that does not take its changes is cut off, and begins anew when it is back.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use millpond_cluster::{ConnectedPeer, POOL_METADATA, Peer, Role};
use millpond_wire::plan;
use millpond_wire::plan::plans_server::Plans;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info, warn};

use super::index::{DriverSent, PlanIndex, WorkerSent};
use crate::cluster::Cluster;
use crate::node_reports::NodeReports;

/// Changes of a moment are told together.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// Changes on their way to one process.
const QUEUED: usize = 256;

/// Whoever takes no change for so long is cut off.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves plans while this replica leads.
#[derive(Clone, Debug)]
pub(crate) struct PlanService {
    pub(crate) book: Arc<PlanIndex>,
    pub(crate) fleet: Arc<NodeReports>,
    pub(crate) cluster: Cluster,
    pub(crate) leads: watch::Receiver<bool>,
    pub(crate) tasks: TaskTracker,
}

type Changes<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Plans for PlanService {
    type FollowAsWorkerStream = Changes<plan::WorkerChange>;
    type FollowAsDriverStream = Changes<plan::DriverChange>;

    async fn follow_as_worker(
        &self,
        request: Request<Streaming<plan::WorkerReport>>,
    ) -> Result<Response<Self::FollowAsWorkerStream>, Status> {
        let Peer { node, .. } = self.admit(&request, Role::Worker)?;
        let pool = request
            .metadata()
            .get(POOL_METADATA)
            .and_then(|pool| pool.to_str().ok());
        let pool = pool
            .ok_or_else(|| Status::invalid_argument("a worker says its pool"))?
            .to_owned();
        if !self.cluster.is_worker(&pool, &node) {
            return Err(Status::permission_denied(format!(
                "node {node} has no worker of pool {pool}"
            )));
        }
        info!(node, pool, "a worker follows the plan");
        let (sender, receiver) = mpsc::channel(QUEUED);
        let stream = self.fleet.worker_begins(&node, &pool);
        let (service, reports) = (self.clone(), request.into_inner());
        self.tasks.spawn(async move {
            tokio::select! {
                () = service.send_worker_changes(&pool, sender) => {}
                () = service.receive_worker_reports(&node, &pool, reports) => {}
                () = service.leadership_lost() => {}
            }
            service.fleet.worker_ends(&node, &pool, stream);
            info!(node, pool, "a worker is gone");
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn follow_as_driver(
        &self,
        request: Request<Streaming<plan::DriverReport>>,
    ) -> Result<Response<Self::FollowAsDriverStream>, Status> {
        let Peer { node, .. } = self.admit(&request, Role::Driver)?;
        info!(node, "a driver follows the plan");
        let (sender, receiver) = mpsc::channel(QUEUED);
        let stream = self.fleet.driver_begins(&node);
        let (service, reports) = (self.clone(), request.into_inner());
        self.tasks.spawn(async move {
            tokio::select! {
                () = service.send_driver_changes(sender) => {}
                () = service.receive_driver_reports(&node, reports) => {}
                () = service.leadership_lost() => {}
            }
            service.fleet.driver_ends(&node, stream);
            info!(node, "a driver is gone");
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl PlanService {
    fn admit<T>(&self, request: &Request<T>, role: Role) -> Result<Peer, Status> {
        if !*self.leads.borrow() {
            return Err(Status::unavailable("this replica is not the leader"));
        }
        match request.extensions().get::<ConnectedPeer>() {
            Some(ConnectedPeer(Ok(peer))) if peer.role == role => Ok(peer.clone()),
            Some(ConnectedPeer(Ok(peer))) => {
                Err(Status::permission_denied(format!("{peer} has another role")))
            }
            Some(ConnectedPeer(Err(error))) => Err(Status::unauthenticated(error.to_string())),
            None => Err(Status::unauthenticated("the connection says not who it is")),
        }
    }

    async fn leadership_lost(&self) {
        let mut leads = self.leads.clone();
        // A replica that ends leads no more either.
        let _ended = leads.wait_for(|leads| !leads).await;
    }

    async fn send_worker_changes(
        &self,
        pool: &str,
        sender: mpsc::Sender<Result<plan::WorkerChange, Status>>,
    ) {
        let mut version = self.book.version();
        let mut told = WorkerSent::default();
        loop {
            version.mark_unchanged();
            for change in self.book.for_worker(pool, &mut told) {
                let change = plan::WorkerChange { change: Some(change) };
                if !send(&sender, change).await {
                    return;
                }
            }
            if version.changed().await.is_err() {
                return;
            }
            tokio::time::sleep(DEBOUNCE).await;
        }
    }

    async fn send_driver_changes(&self, sender: mpsc::Sender<Result<plan::DriverChange, Status>>) {
        let mut version = self.book.version();
        let mut told = DriverSent::default();
        loop {
            version.mark_unchanged();
            for change in self.book.for_driver(&mut told) {
                let change = plan::DriverChange { change: Some(change) };
                if !send(&sender, change).await {
                    return;
                }
            }
            if version.changed().await.is_err() {
                return;
            }
            tokio::time::sleep(DEBOUNCE).await;
        }
    }

    async fn receive_worker_reports(
        &self,
        node: &str,
        pool: &str,
        mut reports: Streaming<plan::WorkerReport>,
    ) {
        while let Some(plan::WorkerReport { report }) = next(&mut reports).await {
            if let Some(report) = report {
                self.fleet.apply_worker_report(node, pool, report);
            }
        }
    }

    async fn receive_driver_reports(&self, node: &str, mut reports: Streaming<plan::DriverReport>) {
        while let Some(plan::DriverReport { report }) = next(&mut reports).await {
            if let Some(report) = report {
                self.fleet.apply_driver_report(node, report);
            }
        }
    }
}

async fn send<T>(sender: &mpsc::Sender<Result<T, Status>>, change: T) -> bool {
    match tokio::time::timeout(SEND_TIMEOUT, sender.send(Ok(change))).await {
        Ok(sent) => sent.is_ok(),
        Err(_elapsed) => {
            warn!("a node process does not take its plan: it is cut off");
            false
        }
    }
}

async fn next<T>(reports: &mut Streaming<T>) -> Option<T> {
    match reports.message().await {
        Ok(report) => report,
        Err(status) => {
            debug!(reason = status.message(), "a stream of reports ended");
            None
        }
    }
}
