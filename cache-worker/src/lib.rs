//! The worker of one Dataset on one node: lists its sources into catalogs, fetches objects, keeps them in tiers and
//! evicts them.
#![deny(unsafe_code)]

mod store;

pub use store::{
    BLOCK_BYTES, BlockIndex, Eviction, Limit, Medium, MemoryTier, NoRoom, Partial, Progress, Room, Store,
    StoreCounters, StoreError, StoreOptions, TierUsage,
};
