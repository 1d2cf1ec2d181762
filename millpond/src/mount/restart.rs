//! When a server that died is started again.

use std::time::Duration;

/// The first wait after a server that did not come up.
const RESTART_BACKOFF_MIN: Duration = Duration::from_millis(100);

/// Readers that wait for a server should not wait for this clock.
const RESTART_BACKOFF_MAX: Duration = Duration::from_secs(2);

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It said that no other would do better.
    Hopeless,
    /// It gave up.
    Failed,
    /// It was killed, or had been serving.
    Died,
}

/// What to do then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Start another one after this time.
    Restart(Duration),
    /// Do not.
    GiveUp,
}

/// The history of a mount's servers. Knows no clock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Restarts {
    ever_ready: bool,
    /// Servers since the last one that came up.
    failures: u32,
}

impl Restarts {
    /// A server serves.
    pub(crate) fn ready(&mut self) {
        self.ever_ready = true;
        self.failures = 0;
    }

    /// Whether any server ever served.
    pub(crate) const fn ever_ready(self) -> bool {
        self.ever_ready
    }

    /// A server ended that was to go on.
    pub(crate) fn ended(&mut self, end: End) -> Decision {
        match end {
            End::Hopeless => return Decision::GiveUp,
            // What a first server cannot do, the next cannot either, and somebody waits for the answer.
            End::Failed if !self.ever_ready => return Decision::GiveUp,
            End::Failed | End::Died => {}
        }
        let wait = match self.failures {
            0 => Duration::ZERO,
            failures => RESTART_BACKOFF_MIN
                .saturating_mul(1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX))
                .min(RESTART_BACKOFF_MAX),
        };
        self.failures = self.failures.saturating_add(1);
        Decision::Restart(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_served_is_replaced_at_once() {
        let mut restarts = Restarts::default();
        for _ in 0..100 {
            restarts.ready();
            assert_eq!(restarts.ended(End::Died), Decision::Restart(Duration::ZERO));
        }
    }

    #[test]
    fn servers_that_do_not_come_up_wait_longer_and_longer() {
        let mut restarts = Restarts::default();
        restarts.ready();
        let waits: Vec<_> = (0..40).map(|_| restarts.ended(End::Failed)).collect();
        assert_eq!(waits[0], Decision::Restart(Duration::ZERO));
        assert_eq!(waits[1], Decision::Restart(RESTART_BACKOFF_MIN));
        assert_eq!(waits[2], Decision::Restart(RESTART_BACKOFF_MIN * 2));
        assert_eq!(waits[39], Decision::Restart(RESTART_BACKOFF_MAX));
    }

    #[test]
    fn the_first_server_may_be_killed_but_not_fail() {
        let mut restarts = Restarts::default();
        assert_eq!(restarts.ended(End::Died), Decision::Restart(Duration::ZERO));
        assert_eq!(restarts.ended(End::Failed), Decision::GiveUp);
    }

    #[test]
    fn what_is_hopeless_is_given_up() {
        let mut restarts = Restarts::default();
        restarts.ready();
        assert_eq!(restarts.ended(End::Hopeless), Decision::GiveUp);
    }
}
