//! The readahead window of one reader of one object.
//!
//! A sequential reader has a window that doubles from 1 MiB to 64 MiB; it is refilled when half of it is used, so
//! that fetches overlap with reading. A reader that jumps has no window and fetches only the blocks it requests. A
//! reader counts as sequential when it starts at offset 0, or when a read continues the previous one (requests of
//! one reader may reach the worker slightly out of order).

use std::ops::Range;

const MIB: u64 = 1 << 20;

/// The first window: one block, so that a reader of a few bytes costs at most one block too many.
pub(super) const MIN_WINDOW_BYTES: u64 = MIB;

/// The largest window: eight requests of 8 MiB in flight fill a 10 Gbit/s link at 50 ms.
pub(super) const MAX_WINDOW_BYTES: u64 = 64 * MIB;

/// How far from the expected offset a read may start: parallel requests of one sequential reader are at most one
/// request (at most 1 MiB) apart.
const TOLERANCE_BYTES: u64 = MIB;

/// The readahead state of one open file.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::dataset) struct ReadaheadState {
    /// Where the next read of a sequential reader starts.
    expected: u64,
    /// The end of what was requested so far, readahead included.
    requested: u64,
    /// The window; 0 for a reader that jumps.
    window_bytes: u64,
}

impl ReadaheadState {
    /// Records a read and returns the range to read ahead, which may be empty.
    ///
    /// `limit_bytes` is the largest window that memory allows now.
    pub(in crate::dataset) fn advance(
        &mut self,
        read: &Range<u64>,
        size_bytes: u64,
        limit_bytes: u64,
    ) -> Range<u64> {
        if read.start.abs_diff(self.expected) > TOLERANCE_BYTES {
            *self = Self {
                expected: read.end,
                requested: read.end,
                window_bytes: 0,
            };
            return read.end..read.end;
        }
        self.expected = self.expected.max(read.end);
        self.requested = self.requested.max(self.expected);
        let limit_bytes = limit_bytes.clamp(MIN_WINDOW_BYTES, MAX_WINDOW_BYTES);
        self.window_bytes = self.window_bytes.clamp(MIN_WINDOW_BYTES, limit_bytes);
        if self.requested - self.expected > self.window_bytes / 2 {
            return self.requested..self.requested;
        }
        let end = self.expected.saturating_add(self.window_bytes).min(size_bytes);
        let fetch = self.requested..end.max(self.requested);
        self.requested = fetch.end;
        self.window_bytes = self.window_bytes.saturating_mul(2).min(limit_bytes);
        fetch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 30;
    const STEP: u64 = 128 << 10;

    #[test]
    fn a_sequential_reader_gets_a_doubling_window_up_to_the_limit() {
        let mut state = ReadaheadState::default();
        let mut fetched = Vec::new();
        for start in (0..SIZE).step_by(usize::try_from(STEP).unwrap()) {
            let fetch = state.advance(&(start..start + STEP), SIZE, u64::MAX);
            if !fetch.is_empty() {
                fetched.push(fetch);
            }
        }
        assert_eq!(fetched[0], STEP..STEP + MIN_WINDOW_BYTES);
        for pair in fetched.windows(2) {
            assert_eq!(pair[0].end, pair[1].start, "no gap and no overlap");
        }
        assert_eq!(fetched.last().unwrap().end, SIZE);
        assert!(
            fetched
                .iter()
                .all(|fetch| fetch.end - fetch.start <= MAX_WINDOW_BYTES)
        );
        assert!(fetched.len() < 48, "{} requests", fetched.len());
    }

    #[test]
    fn a_random_reader_gets_no_readahead() {
        let mut state = ReadaheadState::default();
        let mut at = 12_345_678_u64;
        for _ in 0..1_000 {
            at = at
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let start = (at >> 20) % (SIZE - STEP);
            if start.abs_diff(state.expected) > TOLERANCE_BYTES {
                assert!(state.advance(&(start..start + STEP), SIZE, u64::MAX).is_empty());
            }
        }
    }

    #[test]
    fn a_jump_ends_readahead_and_reading_on_from_there_restarts_it_small() {
        let mut state = ReadaheadState::default();
        for start in (0..32 * MIB).step_by(1 << 20) {
            state.advance(&(start..start + MIB), SIZE, u64::MAX);
        }
        assert!(state.advance(&(500 * MIB..501 * MIB), SIZE, u64::MAX).is_empty());
        assert_eq!(
            state.advance(&(501 * MIB..502 * MIB), SIZE, u64::MAX),
            502 * MIB..503 * MIB
        );
        assert_eq!(
            state.advance(&(502 * MIB..503 * MIB), SIZE, u64::MAX),
            503 * MIB..505 * MIB
        );
    }

    #[test]
    fn requests_of_one_reader_may_arrive_out_of_order() {
        let mut state = ReadaheadState::default();
        let mut end = 0;
        for start in [0, 2, 1, 3, 5, 4, 6, 7] {
            let fetch = state.advance(&(start * STEP..(start + 1) * STEP), SIZE, u64::MAX);
            assert!(fetch.start >= end || fetch.is_empty());
            end = end.max(fetch.end);
        }
        assert!(state.window_bytes >= 2 * MIN_WINDOW_BYTES);
    }

    #[test]
    fn little_memory_shrinks_the_window() {
        let mut state = ReadaheadState::default();
        for start in (0..64 * MIB).step_by(1 << 20) {
            let fetch = state.advance(&(start..start + MIB), SIZE, 4 * MIB);
            assert!(fetch.end <= start + MIB + 4 * MIB);
        }
    }
}
