//! Fetching from one source.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use catalog::Validator;
use tokio::sync::mpsc;

use super::{Budget, ConcurrencyOptions, FetchError, Urgency};
use crate::metrics::OriginMetrics;
use crate::source::Source;

/// What to fetch.
#[derive(Clone, Debug)]
pub struct Request {
    /// The object's key below the source's prefix.
    pub key: String,
    /// The version that the catalog names.
    pub validator: Validator,
    /// The object's whole size.
    pub size_bytes: u64,
    /// The bytes wanted: not beyond the size.
    pub range: Range<u64>,
    /// Who waits.
    pub urgency: Urgency,
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
    /// A source slower than this is no source.
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
}

impl Origin {
    /// Makes the way to `source`.
    pub fn new(source: Arc<Source>, options: OriginOptions, metrics: OriginMetrics) -> Self {
        Self {
            source,
            options,
            metrics,
        }
    }

    /// The source behind it.
    pub const fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Fetches a range whole.
    ///
    /// # Errors
    /// As [`FetchError`] says; never fewer, more or other bytes than asked for.
    ///
    /// # Cancel safety
    /// Dropping the future ends the requests.
    pub async fn fetch(&self, request: Request) -> Result<Vec<Bytes>, FetchError> {
        let _ = (&self.options, &self.metrics);
        Err(FetchError::Unavailable {
            key: request.key,
            reason: "not built yet".to_owned(),
        })
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
        let _ = (block_size_bytes, blocks);
        Err(FetchError::Unavailable {
            key: request.key,
            reason: "not built yet".to_owned(),
        })
    }
}
