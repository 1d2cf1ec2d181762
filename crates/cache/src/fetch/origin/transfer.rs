//! One range in transfer, over as many requests as it takes.
//!
//! At any time one request is in flight, or two where the first is slow: the one that delivers the next bytes first
//! stays. A response that breaks off is continued by a request from that offset, for the same version: so a
//! transfer delivers every byte once, in order, and all of one version.

use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::time::{Instant, sleep_until};

use super::attempt::{Attempt, Hedge};
use super::{Origin, Request};
use crate::fetch::retry::backoff;
use crate::fetch::{FetchError, Priority, PriorityPermit};
use crate::source::{AttemptError, GetRequest};

/// Memory of a hedge: what its socket and its client buffer until it wins or is dropped.
const HEDGE_BYTES: u64 = 1 << 20;

/// One range in transfer.
pub(super) struct Transfer<'a> {
    origin: &'a Origin,
    request: Request,
    /// The next byte to deliver.
    offset: u64,
    current: Option<Attempt>,
    hedge: Option<Hedge>,
    /// Whether a hedge was due since the last bytes, sent or not.
    hedge_was_due: bool,
    /// Errors since the last bytes.
    tries: u32,
    /// The total time to wait for the source, and the time waited.
    timeout: Duration,
    waited: Duration,
    last_error: Option<AttemptError>,
}

/// What happened next.
enum Event {
    Item(Option<Result<Bytes, AttemptError>>),
    HedgeItem(Option<Result<Bytes, AttemptError>>),
    HedgeDue,
    Idle,
    Deadline,
}

impl<'a> Transfer<'a> {
    pub(super) fn new(origin: &'a Origin, request: Request) -> Result<Self, FetchError> {
        let range = &request.range;
        if range.start > range.end || range.end > request.size_bytes {
            let reason = format!(
                "bytes {range:?} are not all within its {} bytes",
                request.size_bytes
            );
            return Err(FetchError::Unavailable {
                key: request.key,
                reason,
            });
        }
        let slowest = (range.end - range.start) / origin.options.min_bytes_per_second.max(1);
        let timeout = origin
            .options
            .deadline
            .saturating_add(Duration::from_secs(slowest));
        Ok(Self {
            origin,
            offset: range.start,
            request,
            current: None,
            hedge: None,
            hedge_was_due: false,
            tries: 0,
            timeout,
            waited: Duration::ZERO,
            last_error: None,
        })
    }

    /// Returns the next bytes; `None` when all were delivered.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        while self.offset < self.request.range.end {
            if self.current.is_none() {
                self.start().await?;
            }
            if let ControlFlow::Break(chunk) = self.step().await? {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }

    /// Sends a request for all missing bytes.
    async fn start(&mut self) -> Result<(), FetchError> {
        let permit = self.permit().await?;
        if self.last_error.is_none() {
            self.origin.retries.record_request();
        }
        self.current = Some(self.attempt(permit));
        Ok(())
    }

    fn attempt(&self, permit: PriorityPermit) -> Attempt {
        let request = GetRequest {
            key: self.request.key.clone(),
            validator: self.request.validator.clone(),
            size_bytes: self.request.size_bytes,
            range: self.offset..self.request.range.end,
        };
        self.origin.hedge_delay.record_request();
        self.origin.metrics.requests.of("get").inc();
        Attempt::send(Arc::clone(&self.origin.source), request, permit)
    }

    /// Waits for a request permit. A source that serves others is only busy: that time does not count.
    async fn permit(&mut self) -> Result<PriorityPermit, FetchError> {
        let origin = self.origin;
        let began = Instant::now();
        let mut permit = pin!(origin.concurrency.acquire(self.request.priority));
        let silent_since = || began.max(origin.last_progress());
        loop {
            let since = silent_since();
            let until = since + self.timeout.saturating_sub(self.waited);
            tokio::select! {
                biased;
                permit = &mut permit => {
                    self.waited += silent_since().elapsed();
                    return Ok(permit);
                }
                () = sleep_until(until) => {
                    if silent_since() <= since {
                        self.waited += since.elapsed();
                        return Err(self.unavailable());
                    }
                }
            }
        }
    }

    /// Waits for one event and handles it.
    async fn step(&mut self) -> Result<ControlFlow<Bytes>, FetchError> {
        match self.event().await {
            Event::Item(Some(Ok(chunk))) => {
                self.hedge = None;
                self.chunk(chunk).await
            }
            Event::HedgeItem(Some(Ok(chunk))) => {
                // The hedge was faster: drop the first request.
                self.current = self.hedge.take().map(|hedge| hedge.attempt);
                self.chunk(chunk).await
            }
            Event::Item(None) => {
                self.failed(AttemptError::Failed("the response ended too early".to_owned()))
                    .await
            }
            Event::Item(Some(Err(error))) => self.failed(error).await,
            Event::HedgeItem(item) => {
                self.hedge = None;
                match item {
                    // Both requests are for the same object at the same time: what is true for one is true for the
                    // other.
                    Some(Err(AttemptError::Changed)) => self.failed(AttemptError::Changed).await,
                    Some(Err(AttemptError::Throttled { .. })) => {
                        self.origin.throttled();
                        Ok(ControlFlow::Continue(()))
                    }
                    Some(_) | None => Ok(ControlFlow::Continue(())),
                }
            }
            Event::HedgeDue => {
                self.start_hedge();
                Ok(ControlFlow::Continue(()))
            }
            Event::Idle => {
                self.failed(AttemptError::Failed("no bytes arrived for too long".to_owned()))
                    .await
            }
            Event::Deadline => {
                self.count(&AttemptError::Failed(String::new()));
                Err(self.unavailable())
            }
        }
    }

    async fn event(&mut self) -> Event {
        let began = Instant::now();
        let left = self.timeout.saturating_sub(self.waited);
        let (Some(current), options) = (self.current.as_mut(), &self.origin.options) else {
            return Event::Item(None);
        };
        let may_hedge =
            !self.hedge_was_due && options.budget.is_some() && self.request.priority == Priority::Reader;
        let hedge_at = began
            + self
                .origin
                .hedge_delay
                .hedge_after()
                .saturating_sub(current.silent);
        let idle = options.idle.saturating_sub(current.silent);
        let hedge = async {
            match self.hedge.as_mut() {
                Some(hedge) => hedge.attempt.response.next().await,
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            biased;
            item = current.response.next() => Event::Item(item),
            item = hedge => Event::HedgeItem(item),
            () = sleep_until(hedge_at), if may_hedge => Event::HedgeDue,
            () = sleep_until(began + left.min(idle)) => {
                if left <= idle { Event::Deadline } else { Event::Idle }
            }
        };
        let waited = began.elapsed();
        self.waited += waited;
        current.wait(waited);
        if let Some(hedge) = self.hedge.as_mut() {
            hedge.attempt.wait(waited);
        }
        event
    }

    /// Checks bytes that arrived, and returns them if they are in range.
    async fn chunk(&mut self, chunk: Bytes) -> Result<ControlFlow<Bytes>, FetchError> {
        let origin = self.origin;
        let length = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        origin.record_progress();
        origin.metrics.bytes.inc_by(length);
        let missing = self.request.range.end - self.offset;
        let Some(current) = self.current.as_mut() else {
            return Ok(ControlFlow::Continue(()));
        };
        if current.received == 0 {
            let latency = current.started.elapsed();
            origin.hedge_delay.record_latency(latency);
            origin
                .metrics
                .first_byte_seconds
                .get()
                .observe(latency.as_secs_f64());
        }
        current.received = current.received.saturating_add(length);
        let too_long = length > missing || (length == missing && current.has_more().await);
        if too_long {
            return self
                .failed(AttemptError::Failed(
                    "more bytes arrived than were requested".to_owned(),
                ))
                .await;
        }
        let expected = current
            .waited
            .as_secs()
            .saturating_mul(origin.options.min_bytes_per_second);
        let too_slow =
            length < missing && current.waited > origin.options.idle && current.received < expected;
        self.offset += length;
        if length > 0 {
            current.silent = Duration::ZERO;
            self.hedge_was_due = false;
            self.tries = 0;
        }
        if too_slow {
            // The bytes of a trickle are valid: return them, and send another request for the rest. It took long to
            // get here, so no backoff.
            let error = AttemptError::Failed("bytes arrived too slowly".to_owned());
            self.count(&error);
            self.last_error = Some(error);
            self.current = None;
            origin.metrics.retries.inc();
        }
        if length == missing {
            self.current = None;
            origin.concurrency.record_success();
            origin.update_limit_gauge(self.origin.limit());
        }
        Ok(if length > 0 {
            ControlFlow::Break(chunk)
        } else {
            ControlFlow::Continue(())
        })
    }

    /// Sends a second request if hedge credit, permits and memory allow it.
    fn start_hedge(&mut self) {
        let origin = self.origin;
        self.hedge_was_due = true;
        let Some(budget) = &origin.options.budget else {
            return;
        };
        let bytes = HEDGE_BYTES.min(self.request.range.end - self.offset);
        let memory = budget.try_acquire(bytes, Priority::Background);
        let permit = origin.concurrency.try_acquire(Priority::Background);
        if let (Some(permit), Some(memory)) = (permit, memory)
            && origin.hedge_delay.may_hedge()
        {
            origin.metrics.hedges.inc();
            self.hedge = Some(Hedge::new(self.attempt(permit), memory));
        }
    }

    /// Decides about a failed request: continue with the hedge, retry after a backoff, or fail.
    async fn failed(&mut self, error: AttemptError) -> Result<ControlFlow<Bytes>, FetchError> {
        self.count(&error);
        self.current = self.hedge.take().map(|hedge| hedge.attempt);
        let key = || self.request.key.clone();
        let after = match &error {
            AttemptError::Changed => return Err(FetchError::Changed { key: key() }),
            AttemptError::Denied(reason) => {
                return Err(FetchError::Denied {
                    key: key(),
                    reason: reason.clone(),
                });
            }
            AttemptError::Permanent(reason)
            | AttemptError::Missing(reason)
            | AttemptError::Unsupported(reason) => {
                return Err(FetchError::Unavailable {
                    key: key(),
                    reason: reason.clone(),
                });
            }
            AttemptError::Throttled { after, .. } => {
                self.origin.throttled();
                after.unwrap_or_default()
            }
            AttemptError::Failed(_) => Duration::ZERO,
        };
        self.last_error = Some(error);
        if self.current.is_some() {
            return Ok(ControlFlow::Continue(()));
        }
        let mut delay = backoff(self.tries).max(after);
        self.tries = self.tries.saturating_add(1);
        loop {
            self.back_off(delay).await?;
            if self.origin.retries.may_retry() {
                break;
            }
            // Too many retries of other transfers: wait as long as after many retries of this one.
            delay = backoff(u32::MAX);
        }
        self.origin.metrics.retries.inc();
        Ok(ControlFlow::Continue(()))
    }

    async fn back_off(&mut self, delay: Duration) -> Result<(), FetchError> {
        let left = self.timeout.saturating_sub(self.waited);
        if delay >= left {
            // A deadline is when the response is due, not when it is known.
            tokio::time::sleep(left).await;
            self.waited = self.timeout;
            return Err(self.unavailable());
        }
        tokio::time::sleep(delay).await;
        self.waited += delay;
        Ok(())
    }

    fn count(&self, error: &AttemptError) {
        let reason = match error {
            AttemptError::Changed => "changed",
            AttemptError::Denied(_) => "denied",
            AttemptError::Throttled { .. } => "throttled",
            AttemptError::Failed(_) => "failed",
            AttemptError::Permanent(_) | AttemptError::Missing(_) | AttemptError::Unsupported(_) => {
                "unsupported"
            }
        };
        self.origin.metrics.errors.of(reason).inc();
    }

    fn unavailable(&self) -> FetchError {
        let waited = self.waited.as_secs();
        let reason = match &self.last_error {
            Some(error) => format!("the source did not answer correctly within {waited} s: {error}"),
            None => format!("the source did not answer within {waited} s"),
        };
        FetchError::Unavailable {
            key: self.request.key.clone(),
            reason,
        }
    }
}
