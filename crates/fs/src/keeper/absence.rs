//! For how long a mount may be without a server.

use std::time::{Duration, Instant};

/// A clock that runs while mounts are kept and nobody serves them.
#[derive(Debug)]
pub(super) struct Limit {
    allowed: Duration,
    /// When the last server was lost; `None` while somebody serves, or nothing needs a server.
    since: Option<Instant>,
}

impl Limit {
    pub(super) const fn new(allowed: Duration) -> Self {
        Self { allowed, since: None }
    }

    /// Tells whether mounts wait for a server.
    pub(super) fn update(&mut self, waiting: bool, now: Instant) {
        match (waiting, self.since) {
            (true, None) => self.since = Some(now),
            (false, _) => self.since = None,
            (true, Some(_)) => {}
        }
    }

    /// The time that is left; `None` while the clock does not run.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        let waited = now.saturating_duration_since(self.since?);
        Some(self.allowed.saturating_sub(waited))
    }

    /// Whether the time is over.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.left(now) == Some(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_only_while_mounts_wait() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut limit = Limit::new(2 * second);
        assert_eq!(limit.left(start), None);
        limit.update(true, start);
        limit.update(true, start + second);
        assert_eq!(limit.left(start + second), Some(second));
        limit.update(false, start + second);
        assert!(!limit.is_over(start + 10 * second));
        limit.update(true, start + 10 * second);
        assert!(!limit.is_over(start + 11 * second));
        assert!(limit.is_over(start + 12 * second));
    }
}
