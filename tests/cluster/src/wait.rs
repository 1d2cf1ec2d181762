//! Waiting.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often is polled what cannot be watched and is cheap to check.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How often is polled where each check runs a program.
const PROGRAM_INTERVAL: Duration = Duration::from_millis(200);

/// Polls `check` until it returns what is waited for.
///
/// # Errors
/// It does not within `timeout`: with the last error of `check`.
pub fn eventually<T>(what: &str, timeout: Duration, check: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    poll(what, timeout, PROGRAM_INTERVAL, check)
}

/// As [`eventually`], for what is cheap to check.
pub(crate) fn poll<T>(
    what: &str,
    timeout: Duration,
    interval: Duration,
    mut check: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        let last = match check() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() >= deadline {
            let last = last
                .map(|error| format!("; the last check: {error:#}"))
                .unwrap_or_default();
            bail!("waited {} s for {what}{last}", timeout.as_secs());
        }
        settle(interval);
    }
}

/// Sleeps, where the passing of time is what is tested or nothing can be watched.
#[expect(clippy::disallowed_methods, reason = "other processes do something meanwhile")]
pub fn settle(time: Duration) {
    std::thread::sleep(time);
}
