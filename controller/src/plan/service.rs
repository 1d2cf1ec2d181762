//! Sends node processes their plan and receives their reports.
//!
//! The certificate alone identifies a peer. A worker also names its pool, which is accepted where one of that pool's worker
//! pods is on the peer's node. A process that does not read its changes is disconnected, and receives the complete plan when
//! it connects again.

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

/// Changes within this time are sent together.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// Changes that wait for the network, for one process.
const QUEUE_CAPACITY: usize = 256;

/// A process that reads no change for this long is disconnected.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves plans while this replica is the leader.
#[derive(Clone, Debug)]
pub(crate) struct PlanService {
    pub(crate) plan: Arc<PlanIndex>,
    pub(crate) node_reports: Arc<NodeReports>,
    pub(crate) cluster: Cluster,
    pub(crate) leadership: watch::Receiver<bool>,
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
            .ok_or_else(|| Status::invalid_argument("the request of a worker names no pool"))?
            .to_owned();
        if !self.cluster.is_worker(&pool, &node) {
            return Err(Status::permission_denied(format!(
                "node {node} has no worker of pool {pool}"
            )));
        }
        info!(node, pool, "worker connected");
        let (sender, receiver) = mpsc::channel(QUEUE_CAPACITY);
        let stream = self.node_reports.worker_connected(&node, &pool);
        let (service, reports) = (self.clone(), request.into_inner());
        self.tasks.spawn(async move {
            tokio::select! {
                () = service.send_worker_changes(&node, &pool, sender) => {}
                () = service.receive_worker_reports(&node, &pool, reports) => {}
                () = service.leadership_lost() => {}
            }
            service.node_reports.worker_disconnected(&node, &pool, stream);
            info!(node, pool, "worker disconnected");
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn follow_as_driver(
        &self,
        request: Request<Streaming<plan::DriverReport>>,
    ) -> Result<Response<Self::FollowAsDriverStream>, Status> {
        let Peer { node, .. } = self.admit(&request, Role::Driver)?;
        info!(node, "driver connected");
        let (sender, receiver) = mpsc::channel(QUEUE_CAPACITY);
        let stream = self.node_reports.driver_connected(&node);
        let (service, reports) = (self.clone(), request.into_inner());
        self.tasks.spawn(async move {
            tokio::select! {
                () = service.send_driver_changes(&node, sender) => {}
                () = service.receive_driver_reports(&node, reports) => {}
                () = service.leadership_lost() => {}
            }
            service.node_reports.driver_disconnected(&node, stream);
            info!(node, "driver disconnected");
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl PlanService {
    fn admit<T>(&self, request: &Request<T>, role: Role) -> Result<Peer, Status> {
        if !*self.leadership.borrow() {
            return Err(Status::unavailable("this replica is not the leader"));
        }
        match request.extensions().get::<ConnectedPeer>() {
            Some(ConnectedPeer(Ok(peer))) if peer.role == role => Ok(peer.clone()),
            Some(ConnectedPeer(Ok(peer))) => {
                Err(Status::permission_denied(format!("{peer} has another role")))
            }
            Some(ConnectedPeer(Err(error))) => Err(Status::unauthenticated(error.to_string())),
            None => Err(Status::unauthenticated("the connection has no peer certificate")),
        }
    }

    async fn leadership_lost(&self) {
        let mut leadership = self.leadership.clone();
        // An error means that the election has ended, which is a loss as well.
        let _ended = leadership.wait_for(|is_leader| !is_leader).await;
    }

    async fn send_worker_changes(
        &self,
        node: &str,
        pool: &str,
        sender: mpsc::Sender<Result<plan::WorkerChange, Status>>,
    ) {
        let mut version = self.plan.version();
        let mut sent = WorkerSent::default();
        loop {
            version.mark_unchanged();
            for change in self.plan.for_worker(pool, &mut sent) {
                let change = plan::WorkerChange { change: Some(change) };
                if !send(&sender, change, Role::Worker, node).await {
                    return;
                }
            }
            if version.changed().await.is_err() {
                return;
            }
            tokio::time::sleep(DEBOUNCE).await;
        }
    }

    async fn send_driver_changes(
        &self,
        node: &str,
        sender: mpsc::Sender<Result<plan::DriverChange, Status>>,
    ) {
        let mut version = self.plan.version();
        let mut sent = DriverSent::default();
        loop {
            version.mark_unchanged();
            for change in self.plan.for_driver(&mut sent) {
                let change = plan::DriverChange { change: Some(change) };
                if !send(&sender, change, Role::Driver, node).await {
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
                self.node_reports.apply_worker_report(node, pool, report);
            }
        }
    }

    async fn receive_driver_reports(&self, node: &str, mut reports: Streaming<plan::DriverReport>) {
        while let Some(plan::DriverReport { report }) = next(&mut reports).await {
            if let Some(report) = report {
                self.node_reports.apply_driver_report(node, report);
            }
        }
    }
}

/// Sends a change. Returns whether the stream can be used further.
async fn send<T>(sender: &mpsc::Sender<Result<T, Status>>, change: T, role: Role, node: &str) -> bool {
    match tokio::time::timeout(SEND_TIMEOUT, sender.send(Ok(change))).await {
        Ok(sent) => sent.is_ok(),
        Err(_elapsed) => {
            warn!(role = role.as_str(), node, timeout = ?SEND_TIMEOUT, "plan stream blocked; disconnecting the process");
            false
        }
    }
}

/// Returns the next report; `None` at the end of the stream.
async fn next<T>(reports: &mut Streaming<T>) -> Option<T> {
    match reports.message().await {
        Ok(report) => report,
        Err(status) => {
            debug!(reason = status.message(), "stream of reports ended");
            None
        }
    }
}
