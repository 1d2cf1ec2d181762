//! Waiting.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often is polled what cannot be watched and costs little to ask.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How often is polled what a program is run for.
const PROGRAM_INTERVAL: Duration = Duration::from_millis(200);

/// Looks until `look` finds what is waited for.
///
/// # Errors
/// It did not within `patience`: with what `look` said last.
pub fn eventually<T>(what: &str, patience: Duration, look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    poll(what, patience, PROGRAM_INTERVAL, look)
}

/// As [`eventually`], for what costs little to ask.
pub(crate) fn poll<T>(
    what: &str,
    patience: Duration,
    interval: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        let last = match look() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() >= deadline {
            let last = last
                .map(|error| format!("; the last look: {error:#}"))
                .unwrap_or_default();
            bail!("waited {} s for {what}{last}", patience.as_secs());
        }
        settle(interval);
    }
}

/// Lets time pass, where passing time is what is tested or nothing can be watched.
#[expect(clippy::disallowed_methods, reason = "other processes do something meanwhile")]
pub fn settle(time: Duration) {
    std::thread::sleep(time);
}
