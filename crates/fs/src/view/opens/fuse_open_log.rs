//! Opens of kernel views in which FUSE had a part: the kernel reports them like those that it served alone.
//!
//! The FUSE server logs each of them **before it answers the kernel**, and the kernel reports an open only after it has
//! succeeded, so the entry exists when the event is read: each entry deducts one event of the same object. What remains are
//! opens that the kernel served alone.
//!
//! Accuracy: an entry whose open failed afterwards, or whose event was merged with another one, would deduct a later open;
//! so entries expire after [`LIFETIME`]. Two readers that wait for one landing are one entry and two events, and the second
//! is rightly counted as local.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use millpond_core::ObjectId;
use parking_lot::Mutex;

use crate::metrics::ViewMetrics;

/// Longer than an event waits for its reader on a busy machine, shorter than the time between two epochs of a training.
const LIFETIME: Duration = Duration::from_secs(30);

/// More objects than are opened through FUSE in that time; further ones are counted twice, once as local.
const MAX_ENTRIES: usize = 262_144;

/// The opens that FUSE served, until their events are read. See the module's documentation.
#[derive(Debug)]
pub(crate) struct FuseOpenLog {
    entries: Mutex<Entries>,
    /// Threads that read events with descriptors; the kernel opens each file once more for them.
    event_readers: Mutex<BTreeSet<u32>>,
    metrics: ViewMetrics,
}

#[derive(Debug, Default)]
struct Entries {
    by_object: HashMap<ObjectId, Entry>,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    opens: u64,
    last: Instant,
}

impl FuseOpenLog {
    pub(crate) fn new(metrics: ViewMetrics) -> Self {
        Self {
            entries: Mutex::default(),
            event_readers: Mutex::default(),
            metrics,
        }
    }

    /// Logs a lookup of a kernel view that finds its small object in a landing directory, where the worker has put it. To be
    /// called before the lookup is answered.
    pub(crate) fn log_landing(&self, id: ObjectId) {
        self.add(id, Instant::now());
    }

    /// Logs a kernel view's open of an object that the FUSE server answers, by the thread `opener`. To be called before the
    /// open is answered.
    pub(crate) fn log_open(&self, id: ObjectId, opener: u32) {
        if !self.event_readers.lock().contains(&opener) {
            self.add(id, Instant::now());
        }
    }

    /// Excludes the opens of a thread that reads events.
    pub(crate) fn exclude(&self, event_reader: u32) {
        self.event_readers.lock().insert(event_reader);
    }

    fn add(&self, id: ObjectId, now: Instant) {
        let mut entries = self.entries.lock();
        if entries.by_object.len() >= MAX_ENTRIES {
            entries.sweep(now);
        }
        if entries.by_object.len() < MAX_ENTRIES || entries.by_object.contains_key(&id) {
            let entry = entries
                .by_object
                .entry(id)
                .or_insert(Entry { opens: 0, last: now });
            entry.opens = entry.opens.saturating_add(1);
            entry.last = now;
        }
    }

    /// Returns how many of `opens` opens of an object the kernel served alone, and removes the entries of the others.
    pub(crate) fn deduct(&self, id: ObjectId, opens: u64, now: Instant) -> u64 {
        let mut entries = self.entries.lock();
        if entries
            .swept
            .is_none_or(|swept| now.saturating_duration_since(swept) > LIFETIME)
        {
            entries.sweep(now);
        }
        let Some(entry) = entries.by_object.get_mut(&id) else {
            return opens;
        };
        let deducted = entry.opens.min(opens);
        entry.opens = entry.opens.saturating_sub(deducted);
        if entry.opens == 0 {
            entries.by_object.remove(&id);
        }
        drop(entries);
        self.metrics.deducted(deducted);
        opens.saturating_sub(deducted)
    }
}

impl Entries {
    fn sweep(&mut self, now: Instant) {
        self.by_object
            .retain(|_, entry| now.saturating_duration_since(entry.last) <= LIFETIME);
        self.swept = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> FuseOpenLog {
        FuseOpenLog::new(ViewMetrics::register(&prometheus::Registry::new()).unwrap())
    }

    const A: ObjectId = ObjectId::from_bytes([1; 16]);
    const B: ObjectId = ObjectId::from_bytes([2; 16]);

    #[test]
    fn each_entry_takes_one_open_of_its_object_away() {
        let log = log();
        let now = Instant::now();
        log.log_open(A, 1);
        log.log_landing(A);
        assert_eq!(log.deduct(B, 3, now), 3);
        assert_eq!(log.deduct(A, 1, now), 0);
        assert_eq!(log.deduct(A, 3, now), 2);
        assert_eq!(log.deduct(A, 3, now), 3);
        assert_eq!(log.metrics.events_deducted.get(), 2);
    }

    #[test]
    fn an_entry_without_an_open_ends_by_itself() {
        let log = log();
        let now = Instant::now();
        log.add(A, now);
        assert_eq!(log.deduct(B, 1, now), 1);
        assert_eq!(log.deduct(A, 1, now + LIFETIME * 2), 1);
    }

    #[test]
    fn opens_by_a_reader_of_events_are_none() {
        let log = log();
        log.exclude(7);
        log.log_open(A, 7);
        assert_eq!(log.deduct(A, 1, Instant::now()), 1);
    }
}
