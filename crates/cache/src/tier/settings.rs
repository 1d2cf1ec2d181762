//! How much a tier may hold and what makes room in it: both may change while it is in use.
//!
//! The capacity changes at once: a smaller one refuses what is new until enough is gone. A new order of eviction begins
//! empty and learns from a walk what is here, as after a start; what comes meanwhile finds it there already.

use std::io;

use super::Tier;
use super::accounting::SHARDS;
use super::directory::Place;
use super::eviction_queue::EvictionQueue;
use super::policy::{Eviction, Limit};

/// What a tier may hold, and what makes room in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TierSettings {
    pub(crate) limit: Limit,
    pub(crate) eviction: Eviction,
}

impl Tier {
    /// Sets other terms, after the stock was taken. Blocks.
    ///
    /// # Errors
    /// The file system's; the terms hold all the same, as far as they were set.
    pub(crate) fn set_terms(&self, terms: TierSettings) -> io::Result<()> {
        let mut current = self.terms.lock();
        if *current == terms {
            return Ok(());
        }
        let directory = self.directory();
        let capacity = self.capacity(&directory, terms.limit)?;
        self.ledger().set_capacity(capacity);
        *current = terms;
        self.ledger().return_surplus();
        if terms.eviction == Eviction::Never {
            self.order.store(None);
            return Ok(());
        }
        self.order
            .store(Some(EvictionQueue::new(terms.eviction, capacity.bytes).into()));
        let costs = *self.ledger().costs();
        for id in self.partials().ids() {
            if let Some(size_bytes) = self.partials().size_bytes(id) {
                self.order_insert(id, costs.partial(size_bytes));
            }
        }
        for shard in 0..SHARDS {
            for place in [Place::Objects, Place::Unverified] {
                for (id, size_bytes) in self.objects_in_shard(place, shard)? {
                    self.order_insert(id, costs.object(size_bytes));
                }
            }
        }
        Ok(())
    }
}
