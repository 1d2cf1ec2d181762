//! RPC service for drivers: translates messages to [`millpond_core::Worker`] and back.

use std::sync::Arc;

use millpond_cluster::{ConnectedPeer, Role};
use millpond_core::{Generation, LocalCopy, Worker};
use millpond_wire::convert;
use millpond_wire::worker as wire;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, warn};
use wire::announcement::Announcement as Content;

use super::catalog_file;
use super::datasets::{Datasets, ServedDataset};
use super::listen::LocalPeer;
use super::sessions::{Announcements, DriverLocation, SessionId};

/// Most queued announcements of a session.
const ANNOUNCEMENT_QUEUE_CAPACITY: usize = 16;

/// RPC service of all Datasets.
#[derive(Clone, Debug)]
pub struct WorkerService {
    datasets: Arc<Datasets>,
    /// Tasks of the sessions.
    tasks: TaskTracker,
}

impl WorkerService {
    /// Creates the service of `datasets`; `tasks` owns the sessions.
    pub const fn new(datasets: Arc<Datasets>, tasks: TaskTracker) -> Self {
        Self { datasets, tasks }
    }

    fn served(&self, caller: Option<wire::Caller>) -> Result<(ServedDataset, u64), Status> {
        let wire::Caller { dataset_uid, driver } =
            caller.ok_or_else(|| Status::invalid_argument("the request has no caller"))?;
        let served = self.datasets.get(&dataset_uid);
        // A worker that has just started will serve it soon; the driver retries.
        let served = served.ok_or_else(|| Status::unavailable("this worker does not serve the Dataset"))?;
        Ok((served, driver))
    }
}

type Stream<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl wire::worker_server::Worker for WorkerService {
    type AttendStream = Stream<wire::Announcement>;
    type CatalogStream = Stream<wire::CatalogChunk>;

    async fn attend(
        &self,
        request: Request<Streaming<wire::Notice>>,
    ) -> Result<Response<Self::AttendStream>, Status> {
        let location = location(&request)?;
        let mut notices = request.into_inner();
        let first = notices.message().await?.and_then(|notice| notice.notice);
        let Some(wire::notice::Notice::Hello(hello)) = first else {
            return Err(Status::invalid_argument("a stream must begin with a hello"));
        };
        let (served, driver) = self.served(hello.caller)?;
        let (announcements, stream) = mpsc::channel(ANNOUNCEMENT_QUEUE_CAPACITY);
        let session = served.drivers.open_session(location, announcements.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = receive_notices(&served, session, driver, notices) => {}
                () = announce(&served, announcements) => {}
                () = served.drivers.stopped() => {}
            }
            served.drivers.close_session(session);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn catalog(
        &self,
        request: Request<wire::CatalogRequest>,
    ) -> Result<Response<Self::CatalogStream>, Status> {
        location(&request)?;
        let request = request.into_inner();
        let part = request.part();
        let (served, _) = self.served(request.caller)?;
        let generation = Generation(request.generation);
        let removed = || Status::not_found(format!("generation {generation} was removed"));
        let file = served.dataset.catalog(generation).ok_or_else(removed)?;
        let path = match part {
            wire::CatalogPart::Image => &file.image,
            wire::CatalogPart::Index => &file.index,
        };
        let chunks = catalog_file::stream(path).map_err(|_error| removed())?;
        Ok(Response::new(ReceiverStream::new(chunks)))
    }

    async fn land(
        &self,
        request: Request<wire::ObjectRequest>,
    ) -> Result<Response<wire::LandResponse>, Status> {
        use wire::land_response::Answer;
        if location(&request)? == DriverLocation::Elsewhere {
            return Err(Status::failed_precondition(
                "objects are landed only for drivers of this node",
            ));
        }
        let wire::ObjectRequest { caller, object } = request.into_inner();
        let (served, _) = self.served(caller)?;
        let object = convert::object(object).map_err(invalid)?;
        let response = match served.dataset.fetch_to_landing(object).await {
            Ok(landed) => Answer::Landed(wire::Landed::from(landed).into()),
            Err(error) => Answer::Failure(error.into()),
        };
        Ok(Response::new(wire::LandResponse {
            answer: Some(response),
        }))
    }

    async fn local(
        &self,
        request: Request<wire::ObjectRequest>,
    ) -> Result<Response<wire::LocalResponse>, Status> {
        use wire::local_response::Answer;
        location(&request)?;
        let wire::ObjectRequest { caller, object } = request.into_inner();
        let (served, _) = self.served(caller)?;
        let object = convert::object(object).map_err(invalid)?;
        let response = match served.dataset.open_local(object).await {
            Ok(local) => Answer::Complete(matches!(local, LocalCopy::Complete(_))),
            Err(error) => Answer::Failure(error.into()),
        };
        Ok(Response::new(wire::LocalResponse {
            answer: Some(response),
        }))
    }

    async fn read(
        &self,
        request: Request<wire::ReadRequest>,
    ) -> Result<Response<wire::ReadResponse>, Status> {
        use wire::read_response::Answer;
        location(&request)?;
        let wire::ReadRequest {
            caller,
            object,
            stream,
            start,
            end,
        } = request.into_inner();
        let (served, driver) = self.served(caller)?;
        let object = convert::object(object).map_err(invalid)?;
        if start > end {
            return Err(Status::invalid_argument("the range ends before it starts"));
        }
        let stream = served.drivers.stream(driver, stream);
        let response = match served.dataset.read(object, stream, start..end).await {
            Ok(data) => {
                let from = data.served();
                Answer::Data(wire::Data {
                    local_bytes: from.local_bytes,
                    peer_bytes: from.peer_bytes,
                    origin_bytes: from.origin_bytes,
                    bytes: data.into(),
                })
            }
            Err(error) => Answer::Failure(error.into()),
        };
        Ok(Response::new(wire::ReadResponse {
            answer: Some(response),
        }))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function of map_err")]
fn invalid(error: convert::InvalidMessage) -> Status {
    Status::invalid_argument(error.to_string())
}

/// Returns the location of a request's driver, from its connection.
fn location<T>(request: &Request<T>) -> Result<DriverLocation, Status> {
    let extensions = request.extensions();
    if extensions.get::<LocalPeer>().is_some() {
        return Ok(DriverLocation::Here);
    }
    match extensions.get::<ConnectedPeer>() {
        Some(ConnectedPeer(Ok(peer))) if peer.role == Role::Driver => Ok(DriverLocation::Elsewhere),
        Some(ConnectedPeer(Ok(peer))) => Err(Status::permission_denied(format!("{peer} is not a driver"))),
        Some(ConnectedPeer(Err(error))) => Err(Status::unauthenticated(error.to_string())),
        None => Err(Status::unauthenticated("the connection has no peer identity")),
    }
}

/// Handles a driver's notices until its stream ends.
async fn receive_notices(
    served: &ServedDataset,
    session: SessionId,
    driver: u64,
    mut notices: Streaming<wire::Notice>,
) {
    loop {
        match notices.message().await {
            Ok(Some(wire::Notice { notice: Some(notice) })) => {
                if let Err(error) = served.drivers.handle_notice(session, driver, notice) {
                    warn!(%error, "invalid message from the driver; closing its session");
                    return;
                }
            }
            Ok(Some(wire::Notice { notice: None })) => {}
            Ok(None) => return,
            Err(status) => {
                debug!(reason = status.message(), "a driver's stream ended");
                return;
            }
        }
    }
}

/// Announces the newest catalog to a driver, now and at every change.
async fn announce(served: &ServedDataset, announcements: Announcements) {
    let mut catalogs = served.dataset.catalogs();
    loop {
        let newest = catalogs.borrow_and_update().clone();
        if let Some(newest) = newest {
            let length = |path: &std::path::Path| std::fs::metadata(path).map(|found| found.len());
            match (length(&newest.image), length(&newest.index)) {
                (Ok(image_bytes), Ok(index_bytes)) => {
                    let announcement = wire::Announcement {
                        announcement: Some(Content::Catalog(wire::NewCatalog {
                            generation: newest.generation.0,
                            image_bytes,
                            index_bytes,
                        })),
                    };
                    if announcements.send(Ok(announcement)).await.is_err() {
                        return;
                    }
                }
                // Removed: a newer one exists already.
                (Err(error), _) | (_, Err(error)) => {
                    debug!(%error, "a catalog was removed before its announcement")
                }
            }
        }
        if catalogs.changed().await.is_err() {
            return;
        }
    }
}
