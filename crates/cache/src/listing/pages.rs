//! One page of a listing, requested until it arrives.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::ListError;
use crate::fetch::retry::backoff;
use crate::metrics::OriginMetrics;
use crate::source::{AttemptError, Depth, Page, Source};

/// What a page is requested with.
#[derive(Clone, Debug)]
pub(super) struct PageRequest<'a> {
    pub(super) prefix: &'a str,
    pub(super) depth: Depth,
    pub(super) token: Option<String>,
}

/// Requests a page until it arrives or the deadline passes.
pub(super) async fn page(
    source: &Source,
    request: PageRequest<'_>,
    deadline: Duration,
    metrics: &OriginMetrics,
) -> Result<Page, ListError> {
    let until = Instant::now() + deadline;
    let prefix = || request.prefix.to_owned();
    let mut last = "no response".to_owned();
    let mut tries = 0;
    loop {
        metrics.requests.of("list").inc();
        let attempt = source.page(request.prefix, request.depth, request.token.clone());
        let Ok(response) = timeout_at(until, attempt).await else {
            return Err(ListError::Unavailable {
                prefix: prefix(),
                reason: last,
            });
        };
        let error = match response {
            Ok(page) => return Ok(page),
            Err(error) => error,
        };
        let (kind, after) = match error {
            // A prefix that was deleted while it was listed is empty; the root must exist.
            AttemptError::Changed if request.prefix != source.prefix() => return Ok(Page::default()),
            AttemptError::Changed => {
                let reason = "it does not exist; check the URL".to_owned();
                return Err(ListError::NotFound {
                    prefix: prefix(),
                    reason,
                });
            }
            AttemptError::Missing(reason) => {
                metrics.errors.of("unsupported").inc();
                return Err(ListError::NotFound {
                    prefix: prefix(),
                    reason,
                });
            }
            AttemptError::Denied(reason) => {
                metrics.errors.of("denied").inc();
                return Err(ListError::Denied {
                    prefix: prefix(),
                    reason,
                });
            }
            AttemptError::Permanent(reason) | AttemptError::Unsupported(reason) => {
                metrics.errors.of("unsupported").inc();
                return Err(ListError::Unsupported {
                    prefix: prefix(),
                    reason,
                });
            }
            AttemptError::Throttled { reason, after } => {
                metrics.throttles.inc();
                last = reason;
                ("throttled", after.unwrap_or_default())
            }
            AttemptError::Failed(reason) => {
                last = reason;
                ("failed", Duration::ZERO)
            }
        };
        metrics.errors.of(kind).inc();
        let delay = backoff(tries).max(after);
        tries += 1;
        if Instant::now() + delay >= until {
            return Err(ListError::Unavailable {
                prefix: prefix(),
                reason: last,
            });
        }
        tokio::time::sleep(delay).await;
        metrics.retries.inc();
    }
}
