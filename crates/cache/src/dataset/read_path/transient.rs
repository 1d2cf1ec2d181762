//! Blocks kept in memory for a short time, because the disk has no space for them.
//!
//! Without it every 128 KiB request for an object that the store refuses would be a request to the source. Blocks
//! are dropped in order of arrival, when newer ones need the space or after [`BLOCK_TTL`]: their memory belongs to
//! the budget of all readers. A block's permit is dropped with it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millpond_core::ObjectId;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::fetch::MemoryPermit;

/// The largest number of blocks, however small: a bound on the table itself.
const MAX_BLOCKS: usize = 8_192;

/// How long a block stays: a reader of 128 KiB at a time has read it by then.
const BLOCK_TTL: Duration = Duration::from_secs(30);

/// Blocks that hold their share of the memory budget.
pub(in crate::dataset) type TransientBlocks = Transient<Arc<MemoryPermit>>;

/// The key of a block: object and block number.
type Key = (ObjectId, u64);

/// A bounded set of blocks, each with a `P` that is dropped with it.
#[derive(Debug)]
pub(in crate::dataset) struct Transient<P> {
    limit_bytes: usize,
    inner: Mutex<Inner<P>>,
    /// Notified when a block is inserted.
    inserted: Notify,
}

#[derive(Debug)]
struct Inner<P> {
    blocks: HashMap<Key, Entry<P>>,
    order: VecDeque<Key>,
    used_bytes: usize,
}

#[derive(Debug)]
struct Entry<P> {
    content: Bytes,
    permit: P,
    since: Instant,
}

impl<P> Inner<P> {
    /// Removes the oldest block and returns its permit, to be dropped after the lock: releasing memory wakes
    /// waiters.
    fn pop(&mut self) -> Option<P> {
        let entry = self.blocks.remove(&self.order.pop_front()?)?;
        self.used_bytes -= entry.content.len();
        Some(entry.permit)
    }
}

impl<P> Transient<P> {
    /// Returns an empty set that holds at most `limit_bytes`.
    pub(in crate::dataset) fn new(limit_bytes: usize) -> Self {
        let inner = Inner {
            blocks: HashMap::new(),
            order: VecDeque::new(),
            used_bytes: 0,
        };
        Self {
            limit_bytes,
            inner: Mutex::new(inner),
            inserted: Notify::new(),
        }
    }

    /// Returns the block, if it is still held.
    pub(super) fn get(&self, id: ObjectId, block: u64) -> Option<Bytes> {
        self.inner
            .lock()
            .blocks
            .get(&(id, block))
            .map(|entry| entry.content.clone())
    }

    /// Inserts a block; the oldest ones are dropped for it.
    pub(super) fn insert(&self, id: ObjectId, block: u64, content: Bytes, permit: P) {
        if content.len() > self.limit_bytes {
            return;
        }
        let mut dropped = Vec::new();
        let mut inner = self.inner.lock();
        while inner.used_bytes + content.len() > self.limit_bytes || inner.order.len() >= MAX_BLOCKS {
            if inner.order.is_empty() {
                break;
            }
            dropped.extend(inner.pop());
        }
        inner.used_bytes += content.len();
        let entry = Entry {
            content,
            permit,
            since: Instant::now(),
        };
        match inner.blocks.insert((id, block), entry) {
            Some(before) => {
                inner.used_bytes -= before.content.len();
                dropped.push(before.permit);
            }
            None => inner.order.push_back((id, block)),
        }
        drop(inner);
        self.inserted.notify_one();
    }

    /// Drops blocks after [`BLOCK_TTL`]. Never returns.
    pub(in crate::dataset) async fn expire_blocks(&self) {
        loop {
            self.inserted.notified().await;
            while self.used_bytes() > 0 {
                tokio::time::sleep(BLOCK_TTL / 2).await;
                self.expire(BLOCK_TTL);
            }
        }
    }

    /// Drops blocks that are older than `age`.
    fn expire(&self, age: Duration) {
        let mut dropped = Vec::new();
        let mut inner = self.inner.lock();
        let is_old = |inner: &Inner<P>| {
            let oldest = inner.order.front().and_then(|key| inner.blocks.get(key));
            oldest.is_some_and(|entry| entry.since.elapsed() >= age)
        };
        while is_old(&inner) {
            dropped.extend(inner.pop());
        }
        drop(inner);
    }

    /// Returns the bytes held now.
    pub(in crate::dataset) fn used_bytes(&self) -> usize {
        self.inner.lock().used_bytes
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use millpond_core::Validator;

    use super::*;

    fn id(key: &str) -> ObjectId {
        ObjectId::derive("memory", key, &Validator::ETag("e".into()), 1)
    }

    #[test]
    fn holds_the_newest_blocks_within_its_limit_and_drops_the_permits_of_the_rest() {
        let transient = Transient::new(10);
        let permit = Arc::new(());
        for block in 0..5 {
            transient.insert(id("a"), block, Bytes::from_static(b"1234"), Arc::clone(&permit));
        }
        assert_eq!(transient.used_bytes(), 8);
        assert_eq!(Arc::strong_count(&permit), 3);
        assert!(transient.get(id("a"), 2).is_none());
        assert!(transient.get(id("a"), 3).is_some());
        assert!(transient.get(id("b"), 3).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_block_is_dropped_after_its_time_to_live() {
        let transient = Transient::new(10);
        let permit = Arc::new(());
        transient.insert(id("a"), 0, Bytes::from_static(b"1234"), Arc::clone(&permit));
        let mut expiry = Box::pin(transient.expire_blocks());
        tokio::time::timeout(BLOCK_TTL / 3, &mut expiry)
            .await
            .unwrap_err();
        transient.insert(id("a"), 1, Bytes::from_static(b"5678"), Arc::clone(&permit));
        assert!(transient.get(id("a"), 0).is_some());
        tokio::time::timeout(BLOCK_TTL, &mut expiry).await.unwrap_err();
        assert!(transient.get(id("a"), 0).is_none() && transient.get(id("a"), 1).is_some());
        tokio::time::timeout(BLOCK_TTL, &mut expiry).await.unwrap_err();
        assert_eq!((transient.used_bytes(), Arc::strong_count(&permit)), (0, 1));
        // It waits for the next block.
        assert!(expiry.now_or_never().is_none());
    }

    #[test]
    fn a_block_that_is_inserted_twice_counts_once() {
        let transient = Transient::new(10);
        transient.insert(id("a"), 0, Bytes::from_static(b"1234"), ());
        transient.insert(id("a"), 0, Bytes::from_static(b"1234"), ());
        assert_eq!(transient.used_bytes(), 4);
        transient.insert(id("a"), 1, Bytes::from_static(b"123456"), ());
        assert!(transient.get(id("a"), 0).is_some());
        transient.insert(id("a"), 2, Bytes::from_static(b"12345678901"), ());
        assert_eq!(transient.used_bytes(), 10, "larger than the limit: not inserted");
    }
}
