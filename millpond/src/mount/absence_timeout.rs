//! How long a mount may be without a server.

use std::time::Duration;

/// Readers that wait longer than this get an error.
const SERVER_ABSENCE_TIMEOUT: Duration = Duration::from_secs(120);

/// Tests wait less by this environment variable. Not for users: the name may go at any time.
const OVERRIDE: &str = "UNSTABLE_MILLPOND_SUCCESSOR_LIMIT";

/// How long a mount may be without a server before its connection is aborted.
pub(crate) fn successor_limit() -> Duration {
    std::env::var(OVERRIDE)
        .ok()
        .and_then(|text| humantime::parse_duration(&text).ok())
        .unwrap_or(SERVER_ABSENCE_TIMEOUT)
}
