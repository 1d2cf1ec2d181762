//! One request for the rest of a range, and its response.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use tokio::time::{Instant, timeout};

use crate::fetch::{MemoryPermit, PriorityPermit};
use crate::source::{AttemptError, GetRequest, Source};

/// The end of a body follows its last byte; the wait for a source that does not send it is bounded.
const END_OF_BODY: Duration = Duration::from_millis(500);

/// One request and its response.
pub(super) struct Attempt {
    pub(super) response: BoxStream<'static, Result<Bytes, AttemptError>>,
    pub(super) started: Instant,
    /// Time spent waiting for it, in total and since the last bytes.
    pub(super) waited: Duration,
    pub(super) silent: Duration,
    pub(super) received: u64,
    _permit: PriorityPermit,
}

/// A second request for bytes that the first one is slow to deliver.
pub(super) struct Hedge {
    pub(super) attempt: Attempt,
    _memory: MemoryPermit,
}

impl Hedge {
    /// Returns a hedge. `memory` is released when the hedge wins or is dropped.
    pub(super) const fn new(attempt: Attempt, memory: MemoryPermit) -> Self {
        Self {
            attempt,
            _memory: memory,
        }
    }
}

impl Attempt {
    /// Sends a request for all of `request`, when the response is first polled.
    pub(super) fn send(source: Arc<Source>, request: GetRequest, permit: PriorityPermit) -> Self {
        let response = stream::once(async move { source.get(&request).await })
            .try_flatten()
            .boxed();
        Self {
            response,
            started: Instant::now(),
            waited: Duration::ZERO,
            silent: Duration::ZERO,
            received: 0,
            _permit: permit,
        }
    }

    /// Counts time spent waiting for it.
    pub(super) fn wait(&mut self, waited: Duration) {
        self.waited += waited;
        self.silent += waited;
    }

    /// Returns whether more bytes follow after the last one. An error after the last byte is harmless.
    pub(super) async fn has_more(&mut self) -> bool {
        let next = match self.response.next().now_or_never() {
            Some(next) => next,
            None => timeout(END_OF_BODY, self.response.next())
                .await
                .unwrap_or_default(),
        };
        matches!(next, Some(Ok(more)) if !more.is_empty())
    }
}
