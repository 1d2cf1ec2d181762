//! Opens of kernel views that FUSE had a part in: the kernel tells them as it tells those it served alone.
//!
//! The FUSE server writes each of them down **before it answers the kernel**, and the kernel tells an open only after
//! it has succeeded, so the entry is there when the event is read: each entry takes one event of the same object away.
//! What is left are opens that the kernel served alone.
//!
//! Accuracy: an entry whose open failed afterwards, or whose event was merged with another one, would take a later open
//! away; so entries end after [`LIFETIME`]. Two readers that wait for one landing are one entry and two events, and the
//! second is rightly told as local.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use millpond_core::ObjectId;
use parking_lot::Mutex;

use crate::metrics::{ServedFrom, ViewMetrics};

/// Longer than an event waits for its reader on a busy machine, shorter than the time between two epochs.
const LIFETIME: Duration = Duration::from_secs(30);

/// More objects than are opened through FUSE in that time; further ones are counted twice, once as local.
const ENTRIES: usize = 262_144;

/// See the module's documentation.
#[derive(Debug)]
pub struct FuseOpenLog {
    entries: Mutex<Entries>,
    /// Threads that read events with descriptors; the kernel opens each file once more for them.
    readers: Mutex<BTreeSet<u32>>,
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
            readers: Mutex::default(),
            metrics,
        }
    }

    /// A kernel view's lookup found a small object in a landing directory by the worker's doing: the open behind it is
    /// answered from `from`. To be called before the lookup is answered.
    pub fn landed(&self, id: ObjectId, size_bytes: u64, from: ServedFrom) {
        self.metrics.opens(from).inc();
        self.metrics.bytes(from).inc_by(size_bytes);
        self.add(id, Instant::now());
    }

    /// A kernel view's open of an object came to the FUSE server, from the thread `opener`. To be called before the open
    /// is answered. Its bytes are counted by who reads them.
    pub fn opened(&self, id: ObjectId, opener: u32) {
        if !self.readers.lock().contains(&opener) {
            self.add(id, Instant::now());
        }
    }

    /// Names a thread whose opens are not a reader's.
    pub(crate) fn ignore(&self, opener: u32) {
        self.readers.lock().insert(opener);
    }

    fn add(&self, id: ObjectId, now: Instant) {
        let mut entries = self.entries.lock();
        if entries.by_object.len() >= ENTRIES {
            entries.sweep(now);
        }
        if entries.by_object.len() < ENTRIES || entries.by_object.contains_key(&id) {
            let entry = entries
                .by_object
                .entry(id)
                .or_insert(Entry { opens: 0, last: now });
            entry.opens = entry.opens.saturating_add(1);
            entry.last = now;
        }
    }

    /// How many of `opens` opens of an object the kernel served alone; the others are settled.
    pub(crate) fn settle(&self, id: ObjectId, opens: u64, now: Instant) -> u64 {
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
        let settled = entry.opens.min(opens);
        entry.opens = entry.opens.saturating_sub(settled);
        if entry.opens == 0 {
            entries.by_object.remove(&id);
        }
        drop(entries);
        self.metrics.events_settled.inc_by(settled);
        opens.saturating_sub(settled)
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

    fn ledger() -> FuseOpenLog {
        FuseOpenLog::new(ViewMetrics::register(&prometheus::Registry::new()).unwrap())
    }

    const A: ObjectId = ObjectId::from_bytes([1; 16]);
    const B: ObjectId = ObjectId::from_bytes([2; 16]);

    #[test]
    fn each_entry_takes_one_open_of_its_object_away() {
        let ledger = ledger();
        let now = Instant::now();
        ledger.opened(A, 1);
        ledger.landed(A, 500, ServedFrom::Origin);
        assert_eq!(ledger.settle(B, 3, now), 3);
        assert_eq!(ledger.settle(A, 1, now), 0);
        assert_eq!(ledger.settle(A, 3, now), 2);
        assert_eq!(ledger.settle(A, 3, now), 3);
        assert_eq!(ledger.metrics.events_settled.get(), 2);
        assert_eq!(ledger.metrics.bytes(ServedFrom::Origin).get(), 500);
        assert_eq!(ledger.metrics.opens(ServedFrom::Origin).get(), 1);
    }

    #[test]
    fn an_entry_without_an_open_ends_by_itself() {
        let ledger = ledger();
        let now = Instant::now();
        ledger.add(A, now);
        assert_eq!(ledger.settle(B, 1, now), 1);
        assert_eq!(ledger.settle(A, 1, now + LIFETIME * 2), 1);
    }

    #[test]
    fn opens_by_a_reader_of_events_are_none() {
        let ledger = ledger();
        ledger.ignore(7);
        ledger.opened(A, 7);
        assert_eq!(ledger.settle(A, 1, Instant::now()), 1);
    }
}
