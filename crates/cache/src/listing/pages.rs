//! One page of a listing, asked for until it is there.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::ListError;
use crate::fetch::retry::backoff;
use crate::metrics::OriginMetrics;
use crate::source::{AttemptError, Depth, Page, Source};

/// What a page is asked for with.
#[derive(Clone, Debug)]
pub(super) struct PageRequest<'a> {
    pub(super) prefix: &'a str,
    pub(super) depth: Depth,
    pub(super) token: Option<String>,
}

/// Asks until the page is there or the deadline is.
pub(super) async fn page(
    source: &Source,
    request: PageRequest<'_>,
    deadline: Duration,
    metrics: &OriginMetrics,
) -> Result<Page, ListError> {
    let until = Instant::now() + deadline;
    let prefix = || request.prefix.to_owned();
    let mut last = "no answer".to_owned();
    let mut tries = 0;
    loop {
        metrics.requests.of("list").inc();
        let asked = source.page(request.prefix, request.depth, request.token.clone());
        let Ok(answer) = timeout_at(until, asked).await else {
            return Err(ListError::Unavailable {
                prefix: prefix(),
                reason: last,
            });
        };
        let trouble = match answer {
            Ok(page) => return Ok(page),
            Err(trouble) => trouble,
        };
        let (kind, after) = match trouble {
            // A prefix that went away while it was listed holds nothing; the root must be there.
            AttemptError::Changed if request.prefix != source.prefix() => return Ok(Page::default()),
            AttemptError::Changed => {
                let reason = "it is not there; check the URL".to_owned();
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
            AttemptError::Hopeless(reason) | AttemptError::Unsupported(reason) => {
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
        let pause = backoff(tries).max(after);
        tries += 1;
        if Instant::now() + pause >= until {
            return Err(ListError::Unavailable {
                prefix: prefix(),
                reason: last,
            });
        }
        tokio::time::sleep(pause).await;
        metrics.retries.inc();
    }
}
