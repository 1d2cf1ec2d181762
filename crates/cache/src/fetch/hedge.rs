//! When a second request for the same bytes is worth its cost, by the source's recent latencies.

use std::time::Duration;

use parking_lot::Mutex;

/// Latencies remembered: a few seconds of a busy source.
const SAMPLES: usize = 128;

/// The delay is computed again after so many responses.
const STALE_AFTER: usize = 16;

/// The delay before the first estimate, and its maximum.
const INITIAL_DELAY: Duration = Duration::from_secs(1);

/// A hedge before this costs more than it saves: a stall of a busy machine, this one or the source, looks the same.
const MIN_DELAY: Duration = Duration::from_millis(200);

/// A request that takes longer than 95 % of all by this factor is stuck rather than slow.
const FACTOR: f64 = 1.5;

/// The credit that a hedge costs; a request earns 1: at most one hedge for each twenty requests,
const HEDGE_COST: u32 = 20;

/// and at most eight of them in a row.
const MAX_CREDIT: u32 = 8 * HEDGE_COST;

/// The hedge delay and hedge credit of one source.
#[derive(Debug, Default)]
pub(super) struct HedgeDelay {
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

impl HedgeDelay {
    /// Records the time to the first bytes of a response.
    pub(super) fn record_latency(&self, latency: Duration) {
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

    /// Records a request.
    pub(super) fn record_request(&self) {
        let mut state = self.state.lock();
        state.credit = (state.credit + 1).min(MAX_CREDIT);
    }

    /// Returns how long to wait for bytes before a second request.
    pub(super) fn hedge_after(&self) -> Duration {
        self.state.lock().hedge_after
    }

    /// Returns whether a hedge may be sent now, and spends its credit.
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
        let delay = HedgeDelay::default();
        for index in 0_u64..128 {
            let slow = index % 64 == 0;
            delay.record_latency(Duration::from_millis(if slow { 900 } else { 200 }));
        }
        assert_eq!(delay.hedge_after(), Duration::from_millis(300));
    }

    #[test]
    fn one_request_in_twenty_is_hedged_at_most() {
        let delay = HedgeDelay::default();
        let mut hedges = 0;
        for _ in 0..1000 {
            delay.record_request();
            if delay.may_hedge() {
                hedges += 1;
            }
        }
        assert_eq!(hedges, 51);
    }

    #[test]
    fn a_quiet_time_saves_credit_for_eight_hedges_only() {
        let delay = HedgeDelay::default();
        for _ in 0..10_000 {
            delay.record_request();
        }
        assert_eq!((0..100).filter(|_| delay.may_hedge()).count(), 8);
    }
}
