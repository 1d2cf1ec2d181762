//! The one way to a source's bytes, with retries within a deadline.
//!
//! A fetch is a [`Transfer`]: it requests its range, takes the bytes that arrive, and requests the rest when a
//! response breaks off. An [`Origin`] holds what all transfers of one source share: the limit of requests in
//! flight, the retry budget, the hedge delay, and when the source last delivered bytes.
//!
//! Deadline: a transfer ends [`OriginOptions::deadline`] (plus a second for each `min_bytes_per_second` of its
//! range) after the source should have begun to respond. Time in which the caller takes no bytes does not count,
//! nor does waiting for a request permit while the source serves others.
//!
//! Not here: memory. The caller that keeps the bytes reserves them from the [`Budget`] before.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use millpond_core::Validator;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::hedge::HedgeDelay;
use super::retry::RetryBudget;
use super::{Budget, Concurrency, ConcurrencyOptions, FetchError, Priority};
use crate::metrics::OriginMetrics;
use crate::source::Source;

mod attempt;
mod transfer;

use transfer::Transfer;

/// A request for a range of an object.
#[derive(Clone, Debug)]
pub struct Request {
    /// The object's full key, as it was listed.
    pub key: String,
    /// The version that the catalog names.
    pub validator: Validator,
    /// The object's size.
    pub size_bytes: u64,
    /// The requested bytes: not beyond the size.
    pub range: Range<u64>,
    /// What waits for the bytes.
    pub priority: Priority,
}

/// A piece of an object between two multiples of the block size.
#[derive(Clone, Debug)]
pub struct FetchedBlock {
    /// Offset in the object divided by the block size.
    pub index: u64,
    /// All requested bytes of the block.
    pub content: Vec<Bytes>,
}

/// Timeouts and limits of an [`Origin`].
#[derive(Clone, Debug)]
pub struct OriginOptions {
    /// Time after which a fetch fails, plus a second for each `min_bytes_per_second` of its range.
    pub deadline: Duration,
    /// A response that is slower than this over `idle` is abandoned for a new request. At least 1.
    pub min_bytes_per_second: u64,
    /// Longest wait for the next byte of one response.
    pub idle: Duration,
    /// Bounds of the number of requests in flight.
    pub concurrency: ConcurrencyOptions,
    /// Budget that hedges reserve their memory from, and without free memory do not start; `None`: no hedges.
    pub budget: Option<Budget>,
}

impl Default for OriginOptions {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            min_bytes_per_second: 64 * 1024,
            idle: Duration::from_secs(10),
            concurrency: ConcurrencyOptions::default(),
            budget: None,
        }
    }
}

/// The one way to a source's bytes.
#[derive(Debug)]
pub struct Origin {
    source: Arc<Source>,
    options: OriginOptions,
    metrics: OriginMetrics,
    concurrency: Concurrency,
    retries: RetryBudget,
    hedge_delay: HedgeDelay,
    created: Instant,
    /// Milliseconds after `created` at which the last bytes arrived.
    progress: AtomicU64,
    /// This source's part of the gauge that all sources of a Dataset share.
    limit_in_gauge: AtomicI64,
}

impl Origin {
    /// Returns the way to `source`.
    pub fn new(source: Arc<Source>, options: OriginOptions, metrics: OriginMetrics) -> Self {
        let concurrency = Concurrency::new(options.concurrency);
        let origin = Self {
            source,
            options,
            metrics,
            concurrency,
            retries: RetryBudget::default(),
            hedge_delay: HedgeDelay::default(),
            created: Instant::now(),
            progress: AtomicU64::new(0),
            limit_in_gauge: AtomicI64::new(0),
        };
        origin.update_limit_gauge(origin.limit());
        origin
    }

    /// Returns the source.
    pub const fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Returns the current limit of requests in flight.
    pub fn concurrency_limit(&self) -> u64 {
        self.concurrency.limit()
    }

    /// Fetches a complete range.
    ///
    /// # Errors
    /// See [`FetchError`]; never fewer, more or other bytes than requested.
    ///
    /// # Cancel safety
    /// Dropping the future ends the requests.
    pub async fn fetch(&self, request: Request) -> Result<Vec<Bytes>, FetchError> {
        let _timer = self.metrics.fetch_seconds.get().start_timer();
        let mut transfer = Transfer::new(self, request)?;
        let mut content = Vec::new();
        while let Some(chunk) = transfer.next().await? {
            content.push(chunk);
        }
        Ok(content)
    }

    /// Fetches a range and sends each block as soon as it is complete, in order.
    ///
    /// The time in which `blocks` is full does not count.
    ///
    /// # Errors
    /// See [`FetchError`]. Blocks that were sent before an error are right. A closed channel ends the fetch
    /// without an error.
    ///
    /// # Cancel safety
    /// Dropping the future ends the requests; blocks that were sent are complete.
    pub async fn fetch_blocks(
        &self,
        request: Request,
        block_size_bytes: u64,
        blocks: mpsc::Sender<FetchedBlock>,
    ) -> Result<(), FetchError> {
        let mut assembly = Assembly::new(request.range.clone(), block_size_bytes.max(1));
        let mut transfer = Transfer::new(self, request)?;
        while let Some(chunk) = transfer.next().await? {
            for block in assembly.add(chunk) {
                if blocks.send(block).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn record_progress(&self) {
        let now = u64::try_from(self.created.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.progress.fetch_max(now, Ordering::Relaxed);
    }

    fn last_progress(&self) -> Instant {
        self.created + Duration::from_millis(self.progress.load(Ordering::Relaxed))
    }

    fn throttled(&self) {
        self.metrics.throttles.inc();
        self.concurrency.record_throttle();
        self.update_limit_gauge(self.limit());
    }

    fn limit(&self) -> i64 {
        i64::try_from(self.concurrency.limit()).unwrap_or(i64::MAX)
    }

    fn update_limit_gauge(&self, limit: i64) {
        let previous = self.limit_in_gauge.swap(limit, Ordering::Relaxed);
        self.metrics.concurrency_limit.add(limit.saturating_sub(previous));
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.update_limit_gauge(0);
    }
}

/// Chunks that are cut into blocks.
#[derive(Debug)]
struct Assembly {
    block_size_bytes: u64,
    offset: u64,
    end: u64,
    pending: Vec<Bytes>,
}

impl Assembly {
    const fn new(range: Range<u64>, block_size_bytes: u64) -> Self {
        Self {
            block_size_bytes,
            offset: range.start,
            end: range.end,
            pending: Vec::new(),
        }
    }

    /// Takes the next chunk, and returns the blocks that it completes. Copies nothing.
    fn add(&mut self, mut chunk: Bytes) -> Vec<FetchedBlock> {
        let mut complete = Vec::new();
        while !chunk.is_empty() {
            let index = self.offset / self.block_size_bytes;
            let border = index
                .saturating_add(1)
                .saturating_mul(self.block_size_bytes)
                .min(self.end);
            let missing = border.saturating_sub(self.offset);
            let length = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            let taken = missing.min(length);
            // It lies between 1 and the chunk's length: a chunk never reaches beyond the range.
            let Some(at) = usize::try_from(taken).ok().filter(|at| *at > 0) else {
                break;
            };
            self.pending.push(chunk.split_to(at));
            self.offset += taken;
            if self.offset == border {
                complete.push(FetchedBlock {
                    index,
                    content: std::mem::take(&mut self.pending),
                });
            }
        }
        complete
    }
}

#[cfg(test)]
mod tests;
