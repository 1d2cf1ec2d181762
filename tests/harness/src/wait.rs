//! Waiting for a process that reports nothing when it is ready.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// After this a wait has failed. Only ever reached by a defect.
const TIMEOUT: Duration = Duration::from_secs(60);

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Waits for a condition that must come.
///
/// # Panics
/// If it does not within a minute.
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    try_wait_until(what, TIMEOUT, condition).unwrap_or_else(|error| panic!("{error}"));
}

/// Waits for a condition.
///
/// # Errors
/// It does not come within the timeout.
pub fn try_wait_until(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !condition() {
        ensure!(begun.elapsed() < timeout, "waited {timeout:?} for {what}");
        poll(POLL_INTERVAL);
    }
    Ok(())
}

/// Pauses between two looks at what reports nothing.
#[expect(
    clippy::disallowed_methods,
    reason = "there is no event to wait for, and nothing else to do"
)]
pub fn poll(interval: Duration) {
    std::thread::sleep(interval);
}
