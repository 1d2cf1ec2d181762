//! Blocks that are kept in memory for a moment, because there is no room for them on disk.
//!
//! Without it every 128 KiB request for an object that the cache refuses would be a request to the source. Blocks
//! leave in the order of their arrival, or when memory is wanted. What a block keeps alive (its part of the
//! memory budget) goes with it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use catalog::ObjectId;
use parking_lot::Mutex;

use crate::fetch::Grant;

/// At most this many blocks, however small: a bound on the table itself.
const MAX_BLOCKS: usize = 8_192;

/// Blocks that hold their part of the memory budget.
pub(super) type TransientBlocks = Transient<Arc<Grant>>;

/// Where a block belongs: object and number of the block in it.
type Key = (ObjectId, u64);

/// A bounded set of blocks, each with a `P` that is dropped with it.
#[derive(Debug)]
pub(super) struct Transient<P> {
    limit_bytes: usize,
    inner: Mutex<Inner<P>>,
}

#[derive(Debug)]
struct Inner<P> {
    blocks: HashMap<Key, (Bytes, P)>,
    order: VecDeque<Key>,
    used_bytes: usize,
}

impl<P> Transient<P> {
    /// An empty set that holds at most `limit_bytes`.
    pub(super) fn new(limit_bytes: usize) -> Self {
        let inner = Inner {
            blocks: HashMap::new(),
            order: VecDeque::new(),
            used_bytes: 0,
        };
        Self {
            limit_bytes,
            inner: Mutex::new(inner),
        }
    }

    /// The block, where it is still here.
    pub(super) fn get(&self, id: ObjectId, block: u64) -> Option<Bytes> {
        self.inner
            .lock()
            .blocks
            .get(&(id, block))
            .map(|(bytes, _)| bytes.clone())
    }

    /// Keeps a block; older ones make room for it.
    pub(super) fn insert(&self, id: ObjectId, block: u64, content: Bytes, permit: P) {
        if content.len() > self.limit_bytes {
            return;
        }
        // What is dropped is dropped after the lock: giving memory back wakes those who wait for it.
        let mut dropped = Vec::new();
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        while inner.used_bytes + content.len() > self.limit_bytes || inner.order.len() >= MAX_BLOCKS {
            let Some(oldest) = inner.order.pop_front() else {
                break;
            };
            if let Some((bytes, permit)) = inner.blocks.remove(&oldest) {
                inner.used_bytes -= bytes.len();
                dropped.push(permit);
            }
        }
        inner.used_bytes += content.len();
        match inner.blocks.insert((id, block), (content, permit)) {
            Some((bytes, permit)) => {
                inner.used_bytes -= bytes.len();
                dropped.push(permit);
            }
            None => inner.order.push_back((id, block)),
        }
    }

    /// Bytes held now.
    pub(super) fn used_bytes(&self) -> usize {
        self.inner.lock().used_bytes
    }
}

#[cfg(test)]
mod tests {
    use catalog::Validator;

    use super::*;

    fn id(key: &str) -> ObjectId {
        ObjectId::derive("memory", key, &Validator::ETag("e".into()), 1)
    }

    #[test]
    fn keeps_the_newest_blocks_within_its_limit_and_drops_the_permits_of_the_rest() {
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

    #[test]
    fn a_block_that_comes_twice_counts_once() {
        let transient = Transient::new(10);
        transient.insert(id("a"), 0, Bytes::from_static(b"1234"), ());
        transient.insert(id("a"), 0, Bytes::from_static(b"1234"), ());
        assert_eq!(transient.used_bytes(), 4);
        transient.insert(id("a"), 1, Bytes::from_static(b"123456"), ());
        assert!(transient.get(id("a"), 0).is_some());
        transient.insert(id("a"), 2, Bytes::from_static(b"12345678901"), ());
        assert_eq!(transient.used_bytes(), 10, "larger than the limit: not kept");
    }
}
