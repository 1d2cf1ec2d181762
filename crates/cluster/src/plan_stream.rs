//! Following the controller's plan.
//!
//! A [`Follower`] keeps one stream to the replica that leads, and begins another whenever it ends. Its owner sees
//! [`PlanEvent`]s: at each [`PlanEvent::Connected`] it says by the given sender what is on its node, then the changes of the
//! plan come, from the beginning.

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
const QUEUED: usize = 256;

/// A plan is at most a Dataset's mounts with their globs and a private authority each.
const MAX_CHANGE_BYTES: usize = 16 << 20;

/// Where a worker's stream names its pool.
pub const POOL_METADATA: &str = "millpond-pool";

/// What happens with the plan.
#[derive(Debug)]
pub enum PlanEvent<S: PlanService> {
    /// A stream has begun: say by this sender what is here. The plan follows from its beginning.
    Connected(mpsc::Sender<S::Report>),
    /// A change.
    Change(S::Change),
    /// The stream has ended: the last plan holds on.
    Lost,
}

/// Which plan.
pub trait PlanService: Send + Sync + 'static {
    /// What the controller says.
    type Change: Send + 'static;
    /// What is said to it.
    type Report: Send + 'static;

    /// Begins a stream.
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
    #[error("the controller gives no plan: {}", .0.message())]
    Refused(Box<Status>),
    #[error("the controller has no address")]
    Nobody,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Follower<S: PlanService> {
    controller: Controller,
    identity: watch::Receiver<Option<Arc<Identity>>>,
    events: mpsc::Sender<PlanEvent<S>>,
    /// Of a worker.
    pool: Option<AsciiMetadataValue>,
}

impl Follower<WorkerPlan> {
    /// A follower of the plan of one pool's workers, and its events. A pool's name is a DNS name; whether this process is
    /// a worker of it is for the controller to know.
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
    /// A follower and its events; [`Self::keep`] follows.
    pub fn new(
        controller: Controller,
        identity: watch::Receiver<Option<Arc<Identity>>>,
    ) -> (Self, mpsc::Receiver<PlanEvent<S>>) {
        let (events, receiver) = mpsc::channel(QUEUED);
        let follower = Self {
            controller,
            identity,
            events,
            pool: None,
        };
        (follower, receiver)
    }

    /// Follows until `stop`, or nobody takes the events any more.
    pub async fn keep(mut self, stop: CancellationToken) {
        // Ended only by `stop`, or by a receiver that is gone.
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
            match self.begin(&identity).await {
                Ok((changes, reports)) => {
                    info!("follows the controller's plan");
                    delays = millpond_process::backoff(BACKOFF_MIN, BACKOFF_MAX);
                    self.pass_on(changes, reports).await;
                }
                Err(error) => debug!(error = with_causes(&error), "failed to follow the plan"),
            }
            if let Some(pause) = delays.next() {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Finds the replica that leads.
    async fn begin(
        &self,
        identity: &Identity,
    ) -> Result<(Streaming<S::Change>, mpsc::Sender<S::Report>), FollowError> {
        let mut last = FollowError::Nobody;
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
            let (sender, reports) = mpsc::channel(QUEUED);
            let mut request = Request::new(ReceiverStream::new(reports));
            if let Some(pool) = &self.pool {
                request.metadata_mut().insert(POOL_METADATA, pool.clone());
            }
            match S::follow(client, request).await {
                Ok(answer) => return Ok((answer.into_inner(), sender)),
                Err(status) => last = FollowError::Refused(Box::new(status)),
            }
        }
        Err(last)
    }

    async fn pass_on(&self, mut changes: Streaming<S::Change>, reports: mpsc::Sender<S::Report>) {
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
                    info!(reason = status.message(), "lost the controller");
                    break;
                }
            }
        }
        // Who does not take it any more needs not know.
        let _gone = self.events.send(PlanEvent::Lost).await;
    }
}
