//! Questions to a worker, repeated until one answers.
//!
//! A worker that is killed or restarted in the middle of a question is asked again when it is back; so is one that says it
//! is stopping. Only an answer of the worker itself is an error for a reader, or the end of the patience.

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

/// Between two questions over the same connection: the next one comes through a new one as soon as it is there.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks.
#[derive(Debug)]
pub(super) struct RetryingClient {
    pub(super) caller: wire::Caller,
    /// The connected client; `None` while there is none.
    pub(super) client: watch::Receiver<Option<WorkerClient<Channel>>>,
    pub(super) patience: Duration,
    pub(super) stop: CancellationToken,
}

/// What came of one question.
enum Answer<T> {
    Yes(T),
    No(wire::Failure),
    /// An answer that no worker of ours gives.
    Nonsense(&'static str),
}

impl RetryingClient {
    pub(super) async fn land(&self, object: ObjectRef) -> Result<LandOutcome, ReadError> {
        self.ask(object.id, |mut client| {
            let request = self.about(object);
            async move {
                use wire::land_response::Answer::{Failure, Landed};
                Ok(match client.land(request).await?.into_inner().answer {
                    Some(Landed(landed)) => match wire::Landed::try_from(landed) {
                        Ok(landed) => Answer::Yes(landed.into()),
                        Err(_unknown) => Answer::Nonsense("it landed an object in a way that is not known"),
                    },
                    Some(Failure(failure)) => Answer::No(failure),
                    None => Answer::Nonsense("its answer is empty"),
                })
            }
        })
        .await
    }

    /// Whether all of an object is in a tier.
    pub(super) async fn local(&self, object: ObjectRef) -> Result<bool, ReadError> {
        self.ask(object.id, |mut client| {
            let request = self.about(object);
            async move {
                use wire::local_response::Answer::{Complete, Failure};
                Ok(match client.local(request).await?.into_inner().answer {
                    Some(Complete(complete)) => Answer::Yes(complete),
                    Some(Failure(failure)) => Answer::No(failure),
                    None => Answer::Nonsense("its answer is empty"),
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
        self.ask(object.id, |mut client| {
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
                    Some(Bytes(data)) if data.bytes.len() as u64 == wanted => Answer::Yes(data_of(data)),
                    Some(Bytes(_)) => Answer::Nonsense("it sent another length than was asked for"),
                    Some(Failure(failure)) => Answer::No(failure),
                    None => Answer::Nonsense("its answer is empty"),
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

    async fn ask<T, F>(
        &self,
        id: ObjectId,
        question: impl Fn(WorkerClient<Channel>) -> F,
    ) -> Result<T, ReadError>
    where
        F: Future<Output = Result<Answer<T>, Status>>,
    {
        let deadline = Instant::now() + self.patience;
        let asked = self.retry_until_answered(id, question);
        let asked = tokio::time::timeout_at(deadline, asked);
        match self.stop.run_until_cancelled(asked).await {
            None => Err(ReadError::Stopping),
            Some(Ok(answer)) => answer,
            Some(Err(_elapsed)) => Err(ReadError::Unavailable {
                id,
                reason: format!("no worker has answered within {} s", self.patience.as_secs()),
            }),
        }
    }

    /// Asks until there is an answer.
    async fn retry_until_answered<T, F>(
        &self,
        id: ObjectId,
        question: impl Fn(WorkerClient<Channel>) -> F,
    ) -> Result<T, ReadError>
    where
        F: Future<Output = Result<Answer<T>, Status>>,
    {
        let mut clients = self.client.clone();
        loop {
            let client = match clients.wait_for(Option::is_some).await {
                Ok(client) => client.clone(),
                Err(_ended) => return Err(ReadError::Stopping),
            };
            let Some(client) = client else { continue };
            clients.mark_unchanged();
            match question(client).await {
                Ok(Answer::Yes(answer)) => return Ok(answer),
                Ok(Answer::Nonsense(reason)) => {
                    return Err(ReadError::Unavailable {
                        id,
                        reason: reason.to_owned(),
                    });
                }
                Ok(Answer::No(failure)) => match failure.of(id) {
                    ReadError::Stopping => {}
                    other => return Err(other),
                },
                Err(status) => debug!(%id, reason = status.message(), "a worker did not answer"),
            }
            // Whichever is first: the next connection, or the next attempt.
            let _sooner = tokio::time::timeout(PAUSE, clients.changed()).await;
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
