//! When to remount for objects that became complete: a file once resolved to FUSE becomes native by it, and every hot
//! inode of the view is looked up again.
//!
//! A remount of 200,000 inodes takes 0.65 s and makes the next pass of opens 1.4 s longer (measured). Against that, a
//! complete object is read through FUSE passthrough at native speed already: there is no urgency. So remounts are rare: never
//! within [`RemountRules::min_interval`] of each other, and then only for many bytes or after a delay.

use std::time::{Duration, Instant};

/// How long objects that became complete wait for the remount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemountRules {
    /// The least time between two remounts.
    pub min_interval: Duration,
    /// From so many bytes on, objects wait for the interval alone.
    pub bytes: u64,
    /// The longest delay of any object.
    pub max_delay: Duration,
    /// The interval is at least so many times the duration of the last remount.
    pub duration_factor: u32,
}

impl Default for RemountRules {
    fn default() -> Self {
        Self {
            min_interval: Duration::from_secs(2),
            bytes: 256 << 20,
            max_delay: Duration::from_secs(10),
            // At most 2 % of the time is spent remounting, about 6 % with the lookups that follow.
            duration_factor: 50,
        }
    }
}

/// The objects that wait for a remount. Reads no clock.
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

    /// Adds an object that became complete.
    pub(crate) fn add(&mut self, size_bytes: u64, now: Instant) {
        let waiting = self
            .waiting
            .get_or_insert(PendingRemount { since: now, bytes: 0 });
        waiting.bytes = waiting.bytes.saturating_add(size_bytes);
    }

    /// The time of the next remount; `None`: nothing waits.
    pub(crate) fn due(&self) -> Option<Instant> {
        let waiting = self.waiting.as_ref()?;
        let wanted = if waiting.bytes >= self.rules.bytes {
            waiting.since
        } else {
            waiting.since + self.rules.max_delay
        };
        Some(
            self.not_before
                .map_or(wanted, |not_before| not_before.max(wanted)),
        )
    }

    /// Removes what waits: a remount for it begins now.
    pub(crate) fn begin(&mut self) {
        self.waiting = None;
    }

    /// Records a remount from `begun` to `now`.
    pub(crate) fn remounted(&mut self, begun: Instant, now: Instant) {
        let took = now.saturating_duration_since(begun);
        self.not_before = Some(
            now + self
                .rules
                .min_interval
                .max(took.saturating_mul(self.rules.duration_factor)),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: RemountRules = RemountRules {
        min_interval: Duration::from_secs(2),
        bytes: 1000,
        max_delay: Duration::from_secs(10),
        duration_factor: 50,
    };

    #[test]
    fn nothing_is_due_where_nothing_waits() {
        assert_eq!(RemountSchedule::new(RULES).due(), None);
    }

    #[test]
    fn many_bytes_are_due_at_once_and_few_later() {
        let start = Instant::now();
        let mut schedule = RemountSchedule::new(RULES);
        schedule.add(10, start);
        assert_eq!(schedule.due(), Some(start + RULES.max_delay));
        schedule.add(990, start + Duration::from_secs(1));
        assert_eq!(schedule.due(), Some(start));
        schedule.begin();
        assert_eq!(schedule.due(), None);
    }

    #[test]
    fn a_pause_follows_each_remount_and_is_longer_after_a_long_one() {
        let start = Instant::now();
        let mut schedule = RemountSchedule::new(RULES);
        schedule.remounted(start, start);
        schedule.add(5000, start);
        assert_eq!(schedule.due(), Some(start + RULES.min_interval));
        let end = start + Duration::from_secs(1);
        schedule.remounted(start, end);
        assert_eq!(schedule.due(), Some(end + Duration::from_secs(50)));
    }
}
