//! The stream of the controller's plan.
//!
//! A [`Follower`] keeps one stream to the leader open, and opens another whenever it ends. Its owner receives
//! [`PlanEvent`]s: at each [`PlanEvent::Connected`] it reports by the given sender what is on its node; the changes of the
//! complete plan follow.

use std::sync::Arc;

use futures::future::BoxFuture;
use millpond_process::{backoff, with_causes};
use millpond_wire::plan::plans_client::PlansClient;
use millpond_wire::plan::{DriverChange, DriverReport, WorkerChange, WorkerReport};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info};

use crate::certificate::{BACKOFF_MAX, BACKOFF_MIN};
use crate::connect::{ConnectError, Controller, connect};
use crate::identity::{Identity, IdentityError};

/// Changes that wait for the owner; reports that wait for the network.
const QUEUE_CAPACITY: usize = 256;

/// The largest change is a Dataset whose mounts all have globs and a private authority.
const MAX_CHANGE_BYTES: usize = 16 << 20;

/// The metadata key under which a worker's stream names its pool.
pub const POOL_METADATA: &str = "millpond-pool";

/// An event of the plan stream.
#[derive(Debug)]
pub enum PlanEvent<S: PlanService> {
    /// A stream was opened: the owner reports its state by this sender. The complete plan follows.
    Connected(mpsc::Sender<S::Report>),
    /// A change of the plan.
    Change(S::Change),
    /// The stream has ended: the last plan stays in force.
    Disconnected,
}

/// The plan of one kind of process.
pub trait PlanService: Send + Sync + 'static {
    /// What the controller sends.
    type Change: Send + 'static;
    /// What the process reports.
    type Report: Send + 'static;

    /// Opens a stream.
    fn follow(
        client: PlansClient<Channel>,
        reports: Request<ReceiverStream<Self::Report>>,
    ) -> BoxFuture<'static, Result<Response<Streaming<Self::Change>>, Status>>;
}

/// The plan of a worker.
#[derive(Clone, Copy, Debug)]
pub enum WorkerPlan {}

/// The plan of a driver.
#[derive(Clone, Copy, Debug)]
pub enum DriverPlan {}

impl PlanService for WorkerPlan {
    type Change = WorkerChange;
    type Report = WorkerReport;

    fn follow(
        mut client: PlansClient<Channel>,
        reports: Request<ReceiverStream<WorkerReport>>,
    ) -> BoxFuture<'static, Result<Response<Streaming<WorkerChange>>, Status>> {
        Box::pin(async move { client.follow_as_worker(reports).await })
    }
}

impl PlanService for DriverPlan {
    type Change = DriverChange;
    type Report = DriverReport;

    fn follow(
        mut client: PlansClient<Channel>,
        reports: Request<ReceiverStream<DriverReport>>,
    ) -> BoxFuture<'static, Result<Response<Streaming<DriverChange>>, Status>> {
        Box::pin(async move { client.follow_as_driver(reports).await })
    }
}

#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the controller refused the plan stream: {}", .0.message())]
    Refused(Box<Status>),
    #[error("the controller has no address")]
    NoReplica,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Follower<S: PlanService> {
    controller: Controller,
    identity: watch::Receiver<Option<Arc<Identity>>>,
    events: mpsc::Sender<PlanEvent<S>>,
    /// The pool of a worker; `None` for a driver.
    pool: Option<AsciiMetadataValue>,
}

impl Follower<WorkerPlan> {
    /// Returns a follower of the plan of one pool's workers, and its events. A pool's name is a DNS name; the controller
    /// checks whether this process is a worker of it.
    pub fn for_pool(
        controller: Controller,
        identity: watch::Receiver<Option<Arc<Identity>>>,
        pool: &str,
    ) -> (Self, mpsc::Receiver<PlanEvent<WorkerPlan>>) {
        let (mut follower, events) = Self::new(controller, identity);
        follower.pool = pool.parse().ok();
        (follower, events)
    }
}

impl<S: PlanService> Follower<S> {
    /// Returns a follower and its events; [`Self::run`] opens the stream.
    pub fn new(
        controller: Controller,
        identity: watch::Receiver<Option<Arc<Identity>>>,
    ) -> (Self, mpsc::Receiver<PlanEvent<S>>) {
        let (events, receiver) = mpsc::channel(QUEUE_CAPACITY);
        let follower = Self {
            controller,
            identity,
            events,
            pool: None,
        };
        (follower, receiver)
    }

    /// Follows the plan until `stop` or until the receiver of the events is dropped.
    pub async fn run(mut self, stop: CancellationToken) {
        // Ends only by `stop` or a dropped receiver.
        let _ended = stop.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&mut self) {
        let mut delays = backoff(BACKOFF_MIN, BACKOFF_MAX);
        while !self.events.is_closed() {
            let Ok(identity) = self
                .identity
                .wait_for(Option::is_some)
                .await
                .map(|identity| identity.clone())
            else {
                return;
            };
            let Some(identity) = identity else { continue };
            match self.open(&identity).await {
                Ok((changes, reports)) => {
                    info!("connected to the controller");
                    delays = millpond_process::backoff(BACKOFF_MIN, BACKOFF_MAX);
                    self.forward(changes, reports).await;
                }
                Err(error) => debug!(
                    error = with_causes(&error),
                    "failed to connect to the controller; retrying"
                ),
            }
            if let Some(delay) = delays.next() {
                tokio::time::sleep(delay).await;
            }
        }
    }

    /// Opens a stream to the leader, which is the replica that accepts it.
    async fn open(
        &self,
        identity: &Identity,
    ) -> Result<(Streaming<S::Change>, mpsc::Sender<S::Report>), FollowError> {
        let mut last = FollowError::NoReplica;
        for address in self.controller.replicas().await? {
            let config = identity.client_config()?;
            let channel = match connect(address, self.controller.host(), config).await {
                Ok(channel) => channel,
                Err(error) => {
                    last = error.into();
                    continue;
                }
            };
            let client = PlansClient::new(channel).max_decoding_message_size(MAX_CHANGE_BYTES);
            let (sender, reports) = mpsc::channel(QUEUE_CAPACITY);
            let mut request = Request::new(ReceiverStream::new(reports));
            if let Some(pool) = &self.pool {
                request.metadata_mut().insert(POOL_METADATA, pool.clone());
            }
            match S::follow(client, request).await {
                Ok(response) => return Ok((response.into_inner(), sender)),
                Err(status) => last = FollowError::Refused(Box::new(status)),
            }
        }
        Err(last)
    }

    async fn forward(&self, mut changes: Streaming<S::Change>, reports: mpsc::Sender<S::Report>) {
        if self.events.send(PlanEvent::Connected(reports)).await.is_err() {
            return;
        }
        loop {
            match changes.message().await {
                Ok(Some(change)) => {
                    if self.events.send(PlanEvent::Change(change)).await.is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(status) => {
                    info!(reason = status.message(), "disconnected from the controller");
                    break;
                }
            }
        }
        // A dropped receiver ends the follower by the check of its loop.
        let _dropped = self.events.send(PlanEvent::Disconnected).await;
    }
}
