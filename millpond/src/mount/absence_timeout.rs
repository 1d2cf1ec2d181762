//! Timeout of a mount without a server.

use std::time::Duration;

/// Default of [`server_absence_timeout`]: readers that wait longer get an error.
const SERVER_ABSENCE_TIMEOUT: Duration = Duration::from_secs(120);

/// Environment variable by which tests shorten the timeout. Not for users: it may be removed at any time.
const OVERRIDE: &str = "UNSTABLE_MILLPOND_SUCCESSOR_LIMIT";

/// Returns how long a mount may be without a server before its connection is aborted.
pub(crate) fn server_absence_timeout() -> Duration {
    std::env::var(OVERRIDE)
        .ok()
        .and_then(|text| humantime::parse_duration(&text).ok())
        .unwrap_or(SERVER_ABSENCE_TIMEOUT)
}
