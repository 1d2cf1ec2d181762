//! When to remount for objects that became whole: a file once resolved to FUSE becomes native by it, and every hot
//! inode of the view is looked up again.
//!
//! A remount of 200,000 inodes takes 0.65 s and makes the next pass of opens 1.4 s longer (measured). Against that, a whole
//! object is read through FUSE passthrough at native speed already: nothing is in a hurry. So remounts are rare: never
//! within [`RemountRules::pause`] of each other, and then only for many bytes or after some waiting.

use std::time::{Duration, Instant};

/// How long objects that became whole wait for the remount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemountRules {
    /// The least time between two remounts.
    pub pause: Duration,
    /// So many bytes of objects do not wait longer than that.
    pub bytes: u64,
    /// Any object waits no longer than this.
    pub latest: Duration,
    /// A pause is at least so many times as long as the remount before it took.
    pub share: u32,
}

impl Default for RemountRules {
    fn default() -> Self {
        Self {
            pause: Duration::from_secs(2),
            bytes: 256 << 20,
            latest: Duration::from_secs(10),
            // At most 2 % of the time is spent remounting, about 6 % with the lookups that follow.
            share: 50,
        }
    }
}

/// What waits for a remount. Knows no clock.
#[derive(Debug)]
pub(crate) struct RemountSchedule {
    rules: RemountRules,
    waiting: Option<PendingRemount>,
    /// No remount before this; `None` before the first.
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct PendingRemount {
    since: Instant,
    bytes: u64,
}

impl RemountSchedule {
    pub(crate) fn new(rules: RemountRules) -> Self {
        Self {
            rules,
            waiting: None,
            not_before: None,
        }
    }

    /// Takes note of an object that became whole.
    pub(crate) fn add(&mut self, size_bytes: u64, now: Instant) {
        let waiting = self
            .waiting
            .get_or_insert(PendingRemount { since: now, bytes: 0 });
        waiting.bytes = waiting.bytes.saturating_add(size_bytes);
    }

    /// When to remount; `None` where nothing waits.
    pub(crate) fn due(&self) -> Option<Instant> {
        let waiting = self.waiting.as_ref()?;
        let wanted = if waiting.bytes >= self.rules.bytes {
            waiting.since
        } else {
            waiting.since + self.rules.latest
        };
        Some(
            self.not_before
                .map_or(wanted, |not_before| not_before.max(wanted)),
        )
    }

    /// Takes what waits; a remount for it begins now.
    pub(crate) fn begin(&mut self) {
        self.waiting = None;
    }

    /// A remount took from `begun` to `now`.
    pub(crate) fn remounted(&mut self, begun: Instant, now: Instant) {
        let took = now.saturating_duration_since(begun);
        self.not_before = Some(now + self.rules.pause.max(took.saturating_mul(self.rules.share)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: RemountRules = RemountRules {
        pause: Duration::from_secs(2),
        bytes: 1000,
        latest: Duration::from_secs(10),
        share: 50,
    };

    #[test]
    fn nothing_is_due_where_nothing_waits() {
        assert_eq!(RemountSchedule::new(RULES).due(), None);
    }

    #[test]
    fn many_bytes_are_due_at_once_and_few_later() {
        let start = Instant::now();
        let mut settling = RemountSchedule::new(RULES);
        settling.add(10, start);
        assert_eq!(settling.due(), Some(start + RULES.latest));
        settling.add(990, start + Duration::from_secs(1));
        assert_eq!(settling.due(), Some(start));
        settling.begin();
        assert_eq!(settling.due(), None);
    }

    #[test]
    fn a_pause_follows_each_remount_and_is_longer_after_a_long_one() {
        let start = Instant::now();
        let mut settling = RemountSchedule::new(RULES);
        settling.remounted(start, start);
        settling.add(5000, start);
        assert_eq!(settling.due(), Some(start + RULES.pause));
        let end = start + Duration::from_secs(1);
        settling.remounted(start, end);
        assert_eq!(settling.due(), Some(end + Duration::from_secs(50)));
    }
}
