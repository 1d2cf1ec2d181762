//! The one way to a source's bytes, patient within a deadline.
//!
//! A fetch is a [`Transfer`]: it asks for its range, takes what comes, and asks for the rest when the answer
//! breaks off. Here is what all transfers of one source share: the number of requests at once, the budget of
//! retries, the pace that hedges go by, and when the source last gave anything.
//!
//! Deadline: a transfer ends [`OriginOptions::deadline`] (and a second for each `min_bytes_per_second` of its
//! range) after the source should have begun to answer it. Time in which the caller takes no bytes does not
//! count, nor does waiting for a place among the requests while the source serves others.
//!
//! Not here: memory. Whoever keeps the bytes takes them from the [`Budget`] before.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use millpond_core::Validator;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::hedge::Pace;
use super::retry::RetryBudget;
use super::{Budget, Concurrency, ConcurrencyOptions, FetchError, Priority};
use crate::metrics::OriginMetrics;
use crate::source::Source;

mod attempt;
mod transfer;

use transfer::Transfer;

/// What to fetch.
#[derive(Clone, Debug)]
pub struct Request {
    /// The object's whole key, as it was listed.
    pub key: String,
    /// The version that the catalog names.
    pub validator: Validator,
    /// The object's whole size.
    pub size_bytes: u64,
    /// The bytes wanted: not beyond the size.
    pub range: Range<u64>,
    /// Who waits.
    pub priority: Priority,
}

/// A piece of an object between two multiples of the block size.
#[derive(Clone, Debug)]
pub struct FetchedBlock {
    /// Offset in the object divided by the block size.
    pub index: u64,
    /// All bytes of the block that were asked for.
    pub content: Vec<Bytes>,
}

/// How patient an [`Origin`] is.
#[derive(Clone, Debug)]
pub struct OriginOptions {
    /// A fetch fails after this, and a second for each `min_bytes_per_second` of its range.
    pub deadline: Duration,
    /// An answer that is slower over `idle` is given up for another. At least 1.
    pub min_bytes_per_second: u64,
    /// Longest wait for the next byte of one answer.
    pub idle: Duration,
    /// Bounds of the number of requests at once.
    pub concurrency: ConcurrencyOptions,
    /// Hedges take their memory here and are left out when there is none; `None`: no hedges.
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
    pace: Pace,
    born: Instant,
    /// Milliseconds after `born` at which bytes came last.
    progress: AtomicU64,
    /// What this source has in the gauge that all sources of a Dataset share.
    shown_limit: AtomicI64,
}

impl Origin {
    /// Makes the way to `source`.
    pub fn new(source: Arc<Source>, options: OriginOptions, metrics: OriginMetrics) -> Self {
        let concurrency = Concurrency::new(options.concurrency);
        let origin = Self {
            source,
            options,
            metrics,
            concurrency,
            retries: RetryBudget::default(),
            pace: Pace::default(),
            born: Instant::now(),
            progress: AtomicU64::new(0),
            shown_limit: AtomicI64::new(0),
        };
        origin.show_limit(origin.limit());
        origin
    }

    /// The source behind it.
    pub const fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// How many requests may be at the source at once, now.
    pub fn concurrency_limit(&self) -> u64 {
        self.concurrency.limit()
    }

    /// Fetches a range whole.
    ///
    /// # Errors
    /// As [`FetchError`] says; never fewer, more or other bytes than asked for.
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

    /// Fetches a range and hands over each block as soon as it is complete, in order.
    ///
    /// The time in which `blocks` is full does not count.
    ///
    /// # Errors
    /// As [`FetchError`] says. Blocks that were handed over before an error are right. A closed channel ends
    /// the fetch without an error.
    ///
    /// # Cancel safety
    /// Dropping the future ends the requests; blocks that were handed over are whole.
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

    fn made_progress(&self) {
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.progress.fetch_max(now, Ordering::Relaxed);
    }

    fn last_progress(&self) -> Instant {
        self.born + Duration::from_millis(self.progress.load(Ordering::Relaxed))
    }

    fn throttled(&self) {
        self.metrics.throttles.inc();
        self.concurrency.throttled();
        self.show_limit(self.limit());
    }

    fn limit(&self) -> i64 {
        i64::try_from(self.concurrency.limit()).unwrap_or(i64::MAX)
    }

    fn show_limit(&self, limit: i64) {
        let shown = self.shown_limit.swap(limit, Ordering::Relaxed);
        self.metrics.concurrency_limit.add(limit.saturating_sub(shown));
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.show_limit(0);
    }
}

/// Chunks on their way to be blocks.
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

    /// Takes the next chunk, and gives the blocks that it completes. Copies nothing.
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
