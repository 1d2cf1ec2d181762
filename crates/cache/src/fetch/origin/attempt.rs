//! One request for the rest of a range, and its answer as it comes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use tokio::time::{Instant, timeout};

use crate::fetch::{MemoryPermit, PriorityPermit};
use crate::source::{AttemptError, GetRequest, Source};

/// The end of a body follows its last byte; a source that does not say so is not waited for.
const END_OF_BODY: Duration = Duration::from_millis(500);

/// One request and its answer.
pub(super) struct Attempt {
    pub(super) answer: BoxStream<'static, Result<Bytes, AttemptError>>,
    pub(super) started: Instant,
    /// Waited for it so far, in all and since bytes came last.
    pub(super) waited: Duration,
    pub(super) quiet: Duration,
    pub(super) received: u64,
    _place: PriorityPermit,
}

/// A second request for what the first is slow to bring.
pub(super) struct Hedge {
    pub(super) attempt: Attempt,
    _memory: MemoryPermit,
}

impl Hedge {
    /// `memory` is given back when the hedge wins or goes.
    pub(super) const fn new(attempt: Attempt, memory: MemoryPermit) -> Self {
        Self {
            attempt,
            _memory: memory,
        }
    }
}

impl Attempt {
    /// Sends a request for all of `ask`, as soon as somebody waits for the answer.
    pub(super) fn send(source: Arc<Source>, ask: GetRequest, place: PriorityPermit) -> Self {
        let answer = stream::once(async move { source.get(&ask).await })
            .try_flatten()
            .boxed();
        Self {
            answer,
            started: Instant::now(),
            waited: Duration::ZERO,
            quiet: Duration::ZERO,
            received: 0,
            _place: place,
        }
    }

    /// Counts time in which somebody waited for it.
    pub(super) fn wait(&mut self, waited: Duration) {
        self.waited += waited;
        self.quiet += waited;
    }

    /// Whether more bytes follow where there should be none. An error after the last byte harms nobody.
    pub(super) async fn goes_on(&mut self) -> bool {
        let next = match self.answer.next().now_or_never() {
            Some(next) => next,
            None => timeout(END_OF_BODY, self.answer.next()).await.unwrap_or_default(),
        };
        matches!(next, Some(Ok(more)) if !more.is_empty())
    }
}
