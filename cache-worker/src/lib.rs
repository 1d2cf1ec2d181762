//! The worker of one Dataset on a node: it lists sources into catalogs, fetches their objects, keeps them in
//! tiers and gives their bytes to whoever reads.

#![deny(unsafe_code)]

pub mod dataset;
mod evict;
pub mod fetch;
pub mod listing;
pub mod metrics;
pub mod process;
mod scrub;
pub mod service;
pub mod source;
mod store;
mod tier;

pub use store::{
    BLOCK_BYTES, BlockIndex, Demand, Eviction, Limit, Medium, MemoryTier, NoRoom, Pace, Partial,
    PoolCapacity, Progress, Room, Store, StoreCounters, StoreError, StoreOptions, StoreTerms, TierUsage,
};
