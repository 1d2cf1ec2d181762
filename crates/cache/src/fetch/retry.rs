//! Retries after an error: an exponential backoff with jitter, and a budget that keeps retries from being what
//! keeps a source down.

use std::time::Duration;

use rand::RngExt;
use tower::retry::budget::{Budget as _, TpsBudget};

/// The first backoff.
const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// The longest backoff.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Retries per second that are always allowed: for a source with few requests, and so that all requests that waited
/// out an outage are retried within a few seconds.
const RETRIES_PER_SECOND: u32 = 50;

/// Beyond these, one retry for each five requests.
const RETRY_SHARE: f32 = 0.2;

/// How long a request counts towards the budget.
const BUDGET_WINDOW: Duration = Duration::from_secs(10);

/// The retry budget of one source.
pub(crate) struct RetryBudget {
    budget: TpsBudget,
}

impl std::fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RetryBudget")
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            budget: TpsBudget::new(BUDGET_WINDOW, RETRIES_PER_SECOND, RETRY_SHARE),
        }
    }
}

impl RetryBudget {
    /// Records a request that is not a retry.
    pub(crate) fn record_request(&self) {
        self.budget.deposit();
    }

    /// Returns whether a retry may be sent now, and counts it.
    pub(crate) fn may_retry(&self) -> bool {
        self.budget.withdraw()
    }
}

/// Returns the wait before retry `tries` (the first is 0): a random time between half and all of a step that
/// doubles.
pub(crate) fn backoff(tries: u32) -> Duration {
    let step = BACKOFF_MIN
        .saturating_mul(1_u32.checked_shl(tries).unwrap_or(u32::MAX))
        .min(BACKOFF_MAX);
    step.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        for _ in 0..100 {
            assert!((BACKOFF_MIN / 2..=BACKOFF_MIN).contains(&backoff(0)));
            assert!((BACKOFF_MIN * 2..=BACKOFF_MIN * 4).contains(&backoff(2)));
            assert!((BACKOFF_MAX / 2..=BACKOFF_MAX).contains(&backoff(20)));
            assert!((BACKOFF_MAX / 2..=BACKOFF_MAX).contains(&backoff(u32::MAX)));
        }
    }

    #[test]
    fn retries_stop_when_the_budget_is_spent() {
        let retries = RetryBudget::default();
        let allowed = (0..10_000).filter(|_| retries.may_retry()).count();
        assert!((1..5000).contains(&allowed), "{allowed}");
    }
}
