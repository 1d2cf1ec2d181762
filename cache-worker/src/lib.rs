//! The worker of one Dataset on a node: it lists sources into catalogs, fetches their objects, keeps them in
//! tiers and gives their bytes to whoever reads.

#![deny(unsafe_code)]

pub mod dataset;
pub mod fetch;
pub mod listing;
pub mod metrics;
pub mod source;
mod store;

pub use store::{
    BLOCK_BYTES, BlockIndex, Eviction, Limit, Medium, MemoryTier, NoRoom, Partial, Progress, Room, Store,
    StoreCounters, StoreError, StoreOptions, TierUsage,
};
