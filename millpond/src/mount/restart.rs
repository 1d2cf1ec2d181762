//! Backoff and limits of server restarts.

use std::time::Duration;

/// First delay after a server that failed to start.
const RESTART_BACKOFF_MIN: Duration = Duration::from_millis(100);

/// Longest delay: short, since readers wait for the server.
const RESTART_BACKOFF_MAX: Duration = Duration::from_secs(2);

/// How a server exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerExit {
    /// With a permanent failure: a restarted server would fail too.
    Permanent,
    /// With another failure.
    Failed,
    /// By a signal.
    Killed,
}

/// What the supervisor does after an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Starts another server after this delay.
    Restart(Duration),
    /// Starts no further server.
    GiveUp,
}

/// History of a mount's servers. Reads no clock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Restarts {
    ever_ready: bool,
    /// Exits since the last server that became ready.
    failures: u32,
}

impl Restarts {
    /// Records that a server became ready.
    pub(crate) fn on_ready(&mut self) {
        self.ever_ready = true;
        self.failures = 0;
    }

    /// Returns whether any server ever became ready.
    pub(crate) const fn ever_ready(self) -> bool {
        self.ever_ready
    }

    /// Records an unexpected exit and returns what follows.
    pub(crate) fn on_exit(&mut self, exit: ServerExit) -> Decision {
        match exit {
            ServerExit::Permanent => return Decision::GiveUp,
            // A failure of the first server would repeat, and the mount command waits for the result.
            ServerExit::Failed if !self.ever_ready => return Decision::GiveUp,
            ServerExit::Failed | ServerExit::Killed => {}
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
    fn a_server_that_served_is_replaced_immediately() {
        let mut restarts = Restarts::default();
        for _ in 0..100 {
            restarts.on_ready();
            assert_eq!(
                restarts.on_exit(ServerExit::Killed),
                Decision::Restart(Duration::ZERO)
            );
        }
    }

    #[test]
    fn servers_that_do_not_come_up_wait_longer_and_longer() {
        let mut restarts = Restarts::default();
        restarts.on_ready();
        let waits: Vec<_> = (0..40).map(|_| restarts.on_exit(ServerExit::Failed)).collect();
        assert_eq!(waits[0], Decision::Restart(Duration::ZERO));
        assert_eq!(waits[1], Decision::Restart(RESTART_BACKOFF_MIN));
        assert_eq!(waits[2], Decision::Restart(RESTART_BACKOFF_MIN * 2));
        assert_eq!(waits[39], Decision::Restart(RESTART_BACKOFF_MAX));
    }

    #[test]
    fn the_first_server_may_be_killed_but_not_fail() {
        let mut restarts = Restarts::default();
        assert_eq!(
            restarts.on_exit(ServerExit::Killed),
            Decision::Restart(Duration::ZERO)
        );
        assert_eq!(restarts.on_exit(ServerExit::Failed), Decision::GiveUp);
    }

    #[test]
    fn a_permanent_failure_is_final() {
        let mut restarts = Restarts::default();
        restarts.on_ready();
        assert_eq!(restarts.on_exit(ServerExit::Permanent), Decision::GiveUp);
    }
}
