//! The speed of the line: a delay before each answer and one bandwidth for all answers together.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Latency and bandwidth, changed while the server runs.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    latency: Duration,
    /// `None`: as fast as it goes.
    bytes_per_second: Option<u64>,
    /// When the line has sent all that was handed to it. `None`: nothing was sent yet.
    busy_until: Option<Instant>,
}

impl Pace {
    pub(crate) fn set_latency(&self, latency: Duration) {
        self.state.lock().latency = latency;
    }

    pub(crate) fn set_bandwidth(&self, bytes_per_second: Option<u64>) {
        self.state.lock().bytes_per_second = bytes_per_second;
    }

    pub(crate) fn latency(&self) -> Duration {
        self.state.lock().latency
    }

    /// The most to send in one piece: some milliseconds of the line, so that many answers share it fairly.
    pub(crate) fn piece_bytes(&self) -> Option<u64> {
        self.state
            .lock()
            .bytes_per_second
            .map(|rate| (rate / 200).clamp(1024, 256 * 1024))
    }

    /// Puts `bytes` on the line and says how long to wait until it has sent them.
    pub(crate) fn send(&self, bytes: u64, now: Instant) -> Option<Duration> {
        let mut state = self.state.lock();
        let rate = state.bytes_per_second?.max(1);
        let start = state.busy_until.map_or(now, |busy| busy.max(now));
        let end = start + Duration::from_secs_f64(bytes as f64 / rate as f64);
        state.busy_until = Some(end);
        Some(end - now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_answers_share_one_line() {
        let pace = Pace::default();
        let now = Instant::now();
        assert_eq!(pace.send(1000, now), None);
        pace.set_bandwidth(Some(1000));
        assert_eq!(pace.send(500, now), Some(Duration::from_millis(500)));
        assert_eq!(pace.send(500, now), Some(Duration::from_secs(1)));
        let later = now + Duration::from_secs(5);
        assert_eq!(pace.send(250, later), Some(Duration::from_millis(250)));
    }
}
