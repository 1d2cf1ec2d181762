//! One range on its way, over as many requests as it takes.
//!
//! At any time one request is under way, or two where the first lets us wait: the one that brings the next
//! bytes first stays. Whatever breaks off is asked for again from where it broke off, in the same version: so
//! a transfer gives every byte once, in order, and all of one version.

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

/// A hedge holds what lies in its socket and its client until it wins or goes.
const HEDGE_BYTES: u64 = 1 << 20;

/// One range on its way.
pub(super) struct Transfer<'a> {
    origin: &'a Origin,
    request: Request,
    /// The next byte to give.
    offset: u64,
    current: Option<Attempt>,
    hedge: Option<Hedge>,
    /// A hedge was due since bytes came last, and sent or not.
    hedge_was_due: bool,
    /// Errors since bytes came.
    tries: u32,
    /// How long may be waited for the source in all, and how long was.
    patience: Duration,
    waited: Duration,
    last_trouble: Option<AttemptError>,
}

/// What happened next.
enum Event {
    Item(Option<Result<Bytes, AttemptError>>),
    HedgeItem(Option<Result<Bytes, AttemptError>>),
    TimeToHedge,
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
        let patience = origin
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
            patience,
            waited: Duration::ZERO,
            last_trouble: None,
        })
    }

    /// The next bytes; `None` when all were given.
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

    /// Sends a request for all that is missing.
    async fn start(&mut self) -> Result<(), FetchError> {
        let place = self.place().await?;
        if self.last_trouble.is_none() {
            self.origin.retries.requested();
        }
        self.current = Some(self.attempt(place));
        Ok(())
    }

    fn attempt(&self, place: PriorityPermit) -> Attempt {
        let ask = GetRequest {
            key: self.request.key.clone(),
            validator: self.request.validator.clone(),
            size_bytes: self.request.size_bytes,
            range: self.offset..self.request.range.end,
        };
        self.origin.pace.requested();
        self.origin.metrics.requests.of("get").inc();
        Attempt::send(Arc::clone(&self.origin.source), ask, place)
    }

    /// Waits for a place among the requests. A source that gives others their bytes is only busy: that does
    /// not count.
    async fn place(&mut self) -> Result<PriorityPermit, FetchError> {
        let origin = self.origin;
        let began = Instant::now();
        let mut place = pin!(origin.concurrency.acquire(self.request.priority));
        let silent_since = || began.max(origin.last_progress());
        loop {
            let since = silent_since();
            let until = since + self.patience.saturating_sub(self.waited);
            tokio::select! {
                biased;
                place = &mut place => {
                    self.waited += silent_since().elapsed();
                    return Ok(place);
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

    /// Waits for one event and acts on it.
    async fn step(&mut self) -> Result<ControlFlow<Bytes>, FetchError> {
        match self.event().await {
            Event::Item(Some(Ok(chunk))) => {
                self.hedge = None;
                self.chunk(chunk).await
            }
            Event::HedgeItem(Some(Ok(chunk))) => {
                // It was faster: the other goes.
                self.current = self.hedge.take().map(|hedge| hedge.attempt);
                self.chunk(chunk).await
            }
            Event::Item(None) => {
                self.failed(AttemptError::Failed("the answer ended too early".to_owned()))
                    .await
            }
            Event::Item(Some(Err(trouble))) => self.failed(trouble).await,
            Event::HedgeItem(item) => {
                self.hedge = None;
                match item {
                    // The same object in the same moment: what is true for one is true for the other.
                    Some(Err(AttemptError::Changed)) => self.failed(AttemptError::Changed).await,
                    Some(Err(AttemptError::Throttled { .. })) => {
                        self.origin.throttled();
                        Ok(ControlFlow::Continue(()))
                    }
                    Some(_) | None => Ok(ControlFlow::Continue(())),
                }
            }
            Event::TimeToHedge => {
                self.start_hedge();
                Ok(ControlFlow::Continue(()))
            }
            Event::Idle => {
                self.failed(AttemptError::Failed("no bytes came for too long".to_owned()))
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
        let left = self.patience.saturating_sub(self.waited);
        let (Some(current), options) = (self.current.as_mut(), &self.origin.options) else {
            return Event::Item(None);
        };
        let may_hedge =
            !self.hedge_was_due && options.budget.is_some() && self.request.priority == Priority::Reader;
        let hedge_at = began + self.origin.pace.hedge_after().saturating_sub(current.quiet);
        let idle = options.idle.saturating_sub(current.quiet);
        let hedge = async {
            match self.hedge.as_mut() {
                Some(hedge) => hedge.attempt.answer.next().await,
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            biased;
            item = current.answer.next() => Event::Item(item),
            item = hedge => Event::HedgeItem(item),
            () = sleep_until(hedge_at), if may_hedge => Event::TimeToHedge,
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

    /// Looks at bytes that came, and gives them if they are in place.
    async fn chunk(&mut self, chunk: Bytes) -> Result<ControlFlow<Bytes>, FetchError> {
        let origin = self.origin;
        let length = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        origin.made_progress();
        origin.metrics.bytes.inc_by(length);
        let missing = self.request.range.end - self.offset;
        let Some(current) = self.current.as_mut() else {
            return Ok(ControlFlow::Continue(()));
        };
        if current.received == 0 {
            let latency = current.started.elapsed();
            origin.pace.answered(latency);
            origin
                .metrics
                .first_byte_seconds
                .get()
                .observe(latency.as_secs_f64());
        }
        current.received = current.received.saturating_add(length);
        let too_long = length > missing || (length == missing && current.goes_on().await);
        if too_long {
            return self
                .failed(AttemptError::Failed(
                    "more bytes came than were asked for".to_owned(),
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
            current.quiet = Duration::ZERO;
            self.hedge_was_due = false;
            self.tries = 0;
        }
        if too_slow {
            // Trickled bytes are bytes: they are given, and another request is sent for the rest. It took
            // long to get here, so there is nothing to wait for.
            let trouble = AttemptError::Failed("bytes came too slowly".to_owned());
            self.count(&trouble);
            self.last_trouble = Some(trouble);
            self.current = None;
            origin.metrics.retries.inc();
        }
        if length == missing {
            self.current = None;
            origin.concurrency.succeeded();
            origin.show_limit(self.origin.limit());
        }
        Ok(if length > 0 {
            ControlFlow::Break(chunk)
        } else {
            ControlFlow::Continue(())
        })
    }

    /// Sends a second request if hedges, places and memory allow it.
    fn start_hedge(&mut self) {
        let origin = self.origin;
        self.hedge_was_due = true;
        let Some(budget) = &origin.options.budget else {
            return;
        };
        let bytes = HEDGE_BYTES.min(self.request.range.end - self.offset);
        let memory = budget.try_acquire(bytes, Priority::Background);
        let place = origin.concurrency.try_acquire(Priority::Background);
        if let (Some(place), Some(memory)) = (place, memory)
            && origin.pace.may_hedge()
        {
            origin.metrics.hedges.inc();
            self.hedge = Some(Hedge::new(self.attempt(place), memory));
        }
    }

    /// Decides about a request that went wrong: to go on with the hedge, to wait and ask again, or to give up.
    async fn failed(&mut self, trouble: AttemptError) -> Result<ControlFlow<Bytes>, FetchError> {
        self.count(&trouble);
        self.current = self.hedge.take().map(|hedge| hedge.attempt);
        let key = || self.request.key.clone();
        let after = match &trouble {
            AttemptError::Changed => return Err(FetchError::Changed { key: key() }),
            AttemptError::Denied(reason) => {
                return Err(FetchError::Denied {
                    key: key(),
                    reason: reason.clone(),
                });
            }
            AttemptError::Hopeless(reason)
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
        self.last_trouble = Some(trouble);
        if self.current.is_some() {
            return Ok(ControlFlow::Continue(()));
        }
        let mut pause = backoff(self.tries).max(after);
        self.tries = self.tries.saturating_add(1);
        loop {
            self.pause(pause).await?;
            if self.origin.retries.may_retry() {
                break;
            }
            // Too many retries of others: the wait is as long as it would be after many of ours.
            pause = backoff(u32::MAX);
        }
        self.origin.metrics.retries.inc();
        Ok(ControlFlow::Continue(()))
    }

    async fn pause(&mut self, pause: Duration) -> Result<(), FetchError> {
        let left = self.patience.saturating_sub(self.waited);
        if pause >= left {
            // A deadline is when the answer is there, not when it is known.
            tokio::time::sleep(left).await;
            self.waited = self.patience;
            return Err(self.unavailable());
        }
        tokio::time::sleep(pause).await;
        self.waited += pause;
        Ok(())
    }

    fn count(&self, trouble: &AttemptError) {
        let reason = match trouble {
            AttemptError::Changed => "changed",
            AttemptError::Denied(_) => "denied",
            AttemptError::Throttled { .. } => "throttled",
            AttemptError::Failed(_) => "failed",
            AttemptError::Hopeless(_) | AttemptError::Missing(_) | AttemptError::Unsupported(_) => {
                "unsupported"
            }
        };
        self.origin.metrics.errors.of(reason).inc();
    }

    fn unavailable(&self) -> FetchError {
        let waited = self.waited.as_secs();
        let reason = match &self.last_trouble {
            Some(trouble) => format!("the source did not answer well within {waited} s: {trouble}"),
            None => format!("the source did not answer within {waited} s"),
        };
        FetchError::Unavailable {
            key: self.request.key.clone(),
            reason,
        }
    }
}
