//! How fast the source answers of late, and when a second request for the same bytes is worth it.

use std::time::Duration;

use parking_lot::Mutex;

/// So many answers are remembered: a few seconds of a busy source.
const SAMPLES: usize = 128;

/// The estimate is made anew after so many answers.
const STALE_AFTER: usize = 16;

/// Nobody knows the source yet.
const INITIAL_DELAY: Duration = Duration::from_secs(1);

/// A hedge before this costs more than it saves: a pause of a busy machine, this one or the source, looks no other.
const MIN_DELAY: Duration = Duration::from_millis(200);

/// A request that needs longer than nineteen of twenty by this factor is stuck rather than slow.
const FACTOR: f64 = 1.5;

/// What a hedge costs, and what a request earns: at most one hedge for each twenty requests...
const HEDGE_COST: u32 = 20;

/// ... and no more than eight of them in a row.
const MAX_CREDIT: u32 = 8 * HEDGE_COST;

/// The pace of one source.
#[derive(Debug, Default)]
pub(super) struct Pace {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    recent: Vec<Duration>,
    next: usize,
    fresh: usize,
    hedge_after: Duration,
    credit: u32,
}

impl Default for State {
    fn default() -> Self {
        Self {
            recent: Vec::new(),
            next: 0,
            fresh: 0,
            hedge_after: INITIAL_DELAY,
            credit: HEDGE_COST,
        }
    }
}

impl Pace {
    /// A request brought its first bytes after `latency`.
    pub(super) fn answered(&self, latency: Duration) {
        let mut state = self.state.lock();
        let next = state.next;
        match state.recent.get_mut(next) {
            Some(oldest) => *oldest = latency,
            None => state.recent.push(latency),
        }
        state.next = (next + 1) % SAMPLES;
        state.fresh += 1;
        if state.fresh >= STALE_AFTER {
            state.fresh = 0;
            let mut sorted = state.recent.clone();
            sorted.sort_unstable();
            let slow = sorted
                .get(sorted.len() * 19 / 20)
                .copied()
                .unwrap_or(INITIAL_DELAY);
            state.hedge_after = slow.mul_f64(FACTOR).clamp(MIN_DELAY, INITIAL_DELAY);
        }
    }

    /// A request was sent.
    pub(super) fn requested(&self) {
        let mut state = self.state.lock();
        state.credit = (state.credit + 1).min(MAX_CREDIT);
    }

    /// How long to wait for bytes before a second request.
    pub(super) fn hedge_after(&self) -> Duration {
        self.state.lock().hedge_after
    }

    /// Whether there may be one more hedge, which is then taken for sent.
    pub(super) fn may_hedge(&self) -> bool {
        let mut state = self.state.lock();
        match state.credit.checked_sub(HEDGE_COST) {
            Some(rest) => {
                state.credit = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hedges_wait_longer_than_nearly_all_answers_take() {
        let pace = Pace::default();
        for index in 0_u64..128 {
            let slow = index % 64 == 0;
            pace.answered(Duration::from_millis(if slow { 900 } else { 200 }));
        }
        assert_eq!(pace.hedge_after(), Duration::from_millis(300));
    }

    #[test]
    fn one_request_in_twenty_is_hedged_at_most() {
        let pace = Pace::default();
        let mut hedges = 0;
        for _ in 0..1000 {
            pace.requested();
            if pace.may_hedge() {
                hedges += 1;
            }
        }
        assert_eq!(hedges, 51);
    }

    #[test]
    fn a_quiet_time_saves_credit_for_eight_hedges_only() {
        let pace = Pace::default();
        for _ in 0..10_000 {
            pace.requested();
        }
        assert_eq!((0..100).filter(|_| pace.may_hedge()).count(), 8);
    }
}
