//! Requests to a worker, retried until one responds.
//!
//! A request is retried when the worker was killed or restarted before its response, or reports that it is stopping. A
//! reader gets an error only from a response of the worker, or after the timeout.

use std::future::Future;
use std::ops::Range;
use std::time::Duration;

use millpond_core::ObjectId;
use millpond_core::{Data, LandOutcome, ObjectRef, ReadError, ServedBytes, StreamId};
use millpond_wire::worker as wire;
use millpond_wire::worker::worker_client::WorkerClient;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;
use tracing::debug;

/// Delay before a retry over the same connection; a new connection is used immediately.
const REQUEST_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Client that retries requests.
#[derive(Debug)]
pub(super) struct RetryingClient {
    pub(super) caller: wire::Caller,
    /// Connected client; `None`: not connected.
    pub(super) client: watch::Receiver<Option<WorkerClient<Channel>>>,
    pub(super) timeout: Duration,
    pub(super) stop: CancellationToken,
}

/// Result of one request.
enum Outcome<T> {
    Value(T),
    Failure(wire::Failure),
    /// The response is invalid, for this reason.
    Invalid(&'static str),
}

impl RetryingClient {
    pub(super) async fn land(&self, object: ObjectRef) -> Result<LandOutcome, ReadError> {
        self.request(object.id, |mut client| {
            let request = self.about(object);
            async move {
                use wire::land_response::Answer::{Failure, Landed};
                Ok(match client.land(request).await?.into_inner().answer {
                    Some(Landed(landed)) => match wire::Landed::try_from(landed) {
                        Ok(landed) => Outcome::Value(landed.into()),
                        Err(_unknown) => Outcome::Invalid("unknown outcome of landing an object"),
                    },
                    Some(Failure(failure)) => Outcome::Failure(failure),
                    None => Outcome::Invalid("empty response"),
                })
            }
        })
        .await
    }

    /// Returns whether the complete object is in a tier.
    pub(super) async fn local(&self, object: ObjectRef) -> Result<bool, ReadError> {
        self.request(object.id, |mut client| {
            let request = self.about(object);
            async move {
                use wire::local_response::Answer::{Complete, Failure};
                Ok(match client.local(request).await?.into_inner().answer {
                    Some(Complete(complete)) => Outcome::Value(complete),
                    Some(Failure(failure)) => Outcome::Failure(failure),
                    None => Outcome::Invalid("empty response"),
                })
            }
        })
        .await
    }

    pub(super) async fn read(
        &self,
        object: ObjectRef,
        stream: StreamId,
        range: Range<u64>,
    ) -> Result<Data, ReadError> {
        self.request(object.id, |mut client| {
            let request = wire::ReadRequest {
                caller: Some(self.caller.clone()),
                object: Some(object.into()),
                stream: stream.0,
                start: range.start,
                end: range.end,
            };
            let wanted = range.end.saturating_sub(range.start);
            async move {
                use wire::read_response::Answer::{Data as Bytes, Failure};
                Ok(match client.read(request).await?.into_inner().answer {
                    Some(Bytes(data)) if data.bytes.len() as u64 == wanted => Outcome::Value(data_of(data)),
                    Some(Bytes(_)) => Outcome::Invalid("response of another length than requested"),
                    Some(Failure(failure)) => Outcome::Failure(failure),
                    None => Outcome::Invalid("empty response"),
                })
            }
        })
        .await
    }

    fn about(&self, object: ObjectRef) -> wire::ObjectRequest {
        wire::ObjectRequest {
            caller: Some(self.caller.clone()),
            object: Some(object.into()),
        }
    }

    async fn request<T, F>(
        &self,
        id: ObjectId,
        send: impl Fn(WorkerClient<Channel>) -> F,
    ) -> Result<T, ReadError>
    where
        F: Future<Output = Result<Outcome<T>, Status>>,
    {
        let deadline = Instant::now() + self.timeout;
        let response = self.retry_until_response(id, send);
        let response = tokio::time::timeout_at(deadline, response);
        match self.stop.run_until_cancelled(response).await {
            None => Err(ReadError::Stopping),
            Some(Ok(result)) => result,
            Some(Err(_elapsed)) => Err(ReadError::Unavailable {
                id,
                reason: format!("no worker responded within {} s", self.timeout.as_secs()),
            }),
        }
    }

    /// Sends a request until a worker responds.
    async fn retry_until_response<T, F>(
        &self,
        id: ObjectId,
        send: impl Fn(WorkerClient<Channel>) -> F,
    ) -> Result<T, ReadError>
    where
        F: Future<Output = Result<Outcome<T>, Status>>,
    {
        let mut clients = self.client.clone();
        loop {
            let client = match clients.wait_for(Option::is_some).await {
                Ok(client) => client.clone(),
                Err(_ended) => return Err(ReadError::Stopping),
            };
            let Some(client) = client else { continue };
            clients.mark_unchanged();
            match send(client).await {
                Ok(Outcome::Value(value)) => return Ok(value),
                Ok(Outcome::Invalid(reason)) => {
                    return Err(ReadError::Unavailable {
                        id,
                        reason: reason.to_owned(),
                    });
                }
                Ok(Outcome::Failure(failure)) => match failure.of(id) {
                    ReadError::Stopping => {}
                    other => return Err(other),
                },
                Err(status) => debug!(%id, reason = status.message(), "a worker did not respond; retrying"),
            }
            // Waits for the next connection or the retry delay, whichever is first.
            let _sooner = tokio::time::timeout(REQUEST_RETRY_DELAY, clients.changed()).await;
        }
    }
}

fn data_of(data: wire::Data) -> Data {
    let wire::Data {
        bytes,
        local_bytes,
        peer_bytes,
        origin_bytes,
    } = data;
    Data::Bytes(
        bytes,
        ServedBytes {
            local_bytes,
            peer_bytes,
            origin_bytes,
        },
    )
}
