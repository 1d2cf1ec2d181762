//! How long a mount may be without a server.

use std::time::{Duration, Instant};

/// A clock that runs while mounts wait for a server.
#[derive(Debug)]
pub(super) struct Absence {
    timeout: Duration,
    /// When the last server disconnected; `None` while every mount is served.
    since: Option<Instant>,
}

impl Absence {
    pub(super) const fn new(timeout: Duration) -> Self {
        Self { timeout, since: None }
    }

    /// Sets whether mounts wait for a server.
    pub(super) fn update(&mut self, waiting: bool, now: Instant) {
        match (waiting, self.since) {
            (true, None) => self.since = Some(now),
            (false, _) => self.since = None,
            (true, Some(_)) => {}
        }
    }

    /// The remaining time; `None` while the clock does not run.
    pub(super) fn remaining(&self, now: Instant) -> Option<Duration> {
        let waited = now.saturating_duration_since(self.since?);
        Some(self.timeout.saturating_sub(waited))
    }

    /// Returns whether the timeout has elapsed.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.remaining(now) == Some(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_only_while_mounts_wait() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut absence = Absence::new(2 * second);
        assert_eq!(absence.remaining(start), None);
        absence.update(true, start);
        absence.update(true, start + second);
        assert_eq!(absence.remaining(start + second), Some(second));
        absence.update(false, start + second);
        assert!(!absence.is_over(start + 10 * second));
        absence.update(true, start + 10 * second);
        assert!(!absence.is_over(start + 11 * second));
        assert!(absence.is_over(start + 12 * second));
    }
}
