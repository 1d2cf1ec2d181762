//! What was asked for and what was sent.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::fault::Kind;

/// Counts since the start or the last reset. A request counts when it comes, whatever is answered; bytes count when
/// they are handed to the connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// GetObject requests.
    pub gets: u64,
    /// HeadObject and HeadBucket requests.
    pub heads: u64,
    /// ListObjectsV2 requests.
    pub lists: u64,
    /// All other requests.
    pub others: u64,
    /// Answers with a status of 400 or more.
    pub errors: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Bytes of object content sent in answers to GetObject.
    pub bytes_sent: u64,
    /// By `bucket/key` (bytes that are not UTF-8 replaced), for the objects asked for by GET or HEAD.
    pub keys: BTreeMap<String, KeyCounters>,
}

impl Counters {
    /// The counts of one object; zeros when it was never asked for.
    pub fn key(&self, bucket: &str, key: &str) -> KeyCounters {
        self.keys
            .get(&format!("{bucket}/{key}"))
            .copied()
            .unwrap_or_default()
    }
}

/// Counts of one object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyCounters {
    /// GetObject requests.
    pub gets: u64,
    /// HeadObject requests.
    pub heads: u64,
    /// Bytes of content sent.
    pub bytes_sent: u64,
}

/// The counters while the server runs.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    gets: AtomicU64,
    heads: AtomicU64,
    lists: AtomicU64,
    others: AtomicU64,
    errors: AtomicU64,
    connections: AtomicU64,
    sent: Arc<AtomicU64>,
    keys: Mutex<HashMap<Vec<u8>, Arc<Slot>>>,
}

#[derive(Debug, Default)]
struct Slot {
    gets: AtomicU64,
    heads: AtomicU64,
    sent: AtomicU64,
}

/// Where one answer's bytes are counted.
#[derive(Debug)]
pub(crate) struct Meter {
    total: Arc<AtomicU64>,
    key: Arc<Slot>,
}

impl Meter {
    pub(crate) fn sent(&self, bytes: u64) {
        self.total.fetch_add(bytes, Relaxed);
        self.key.sent.fetch_add(bytes, Relaxed);
    }
}

impl Recorder {
    pub(crate) fn connection(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    pub(crate) fn error(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    /// Counts a request for `path` (`bucket/key`) and gives the meter for its answer.
    pub(crate) fn request(&self, kind: Kind, path: &[u8]) -> Option<Meter> {
        match kind {
            Kind::Get => {
                self.gets.fetch_add(1, Relaxed);
                let key = self.slot(path);
                key.gets.fetch_add(1, Relaxed);
                Some(Meter {
                    total: Arc::clone(&self.sent),
                    key,
                })
            }
            Kind::Head => {
                self.heads.fetch_add(1, Relaxed);
                self.slot(path).heads.fetch_add(1, Relaxed);
                None
            }
            Kind::List => {
                self.lists.fetch_add(1, Relaxed);
                None
            }
            Kind::Other => {
                self.others.fetch_add(1, Relaxed);
                None
            }
        }
    }

    pub(crate) fn snapshot(&self) -> Counters {
        let keys = self.keys.lock();
        let keys = keys.iter().map(|(key, slot)| {
            let counts = KeyCounters {
                gets: slot.gets.load(Relaxed),
                heads: slot.heads.load(Relaxed),
                bytes_sent: slot.sent.load(Relaxed),
            };
            (String::from_utf8_lossy(key).into_owned(), counts)
        });
        Counters {
            gets: self.gets.load(Relaxed),
            heads: self.heads.load(Relaxed),
            lists: self.lists.load(Relaxed),
            others: self.others.load(Relaxed),
            errors: self.errors.load(Relaxed),
            connections: self.connections.load(Relaxed),
            bytes_sent: self.sent.load(Relaxed),
            keys: keys.collect(),
        }
    }

    /// Answers that are still being sent count on in the total, but not for their key.
    pub(crate) fn reset(&self) {
        let Self {
            gets,
            heads,
            lists,
            others,
            errors,
            connections,
            sent,
            keys,
        } = self;
        keys.lock().clear();
        for counter in [gets, heads, lists, others, errors, connections, sent] {
            counter.store(0, Relaxed);
        }
    }

    fn slot(&self, path: &[u8]) -> Arc<Slot> {
        let mut keys = self.keys.lock();
        match keys.get(path) {
            Some(slot) => Arc::clone(slot),
            None => Arc::clone(keys.entry(path.to_vec()).or_default()),
        }
    }
}
