//! Pauses between attempts that never end.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// Pauses that grow from `least` to `longest`, each by chance a little longer: many processes at once must not ask one that
/// has just come back. There is always a next one.
pub fn backoff(least: Duration, longest: Duration) -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::new()
        .with_min_delay(least)
        .with_max_delay(longest)
        .with_jitter()
        .without_max_times()
        .build()
}
