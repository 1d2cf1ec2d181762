//! The cache of one node: it lists sources into catalogs, fetches their objects, stores them in tiers and serves reads.
//!
//! - [`dataset`]: one Dataset, put together from the modules below. It is the [`millpond_core::Worker`] that drivers call.
//! - [`listing`], [`source`]: the objects of a source, and the requests for their bytes. [`fetch`]: limits, retries and
//!   single-flight in front of it.
//! - [`Store`]: objects on disk and in memory, with tiers, eviction and scrub.

#![deny(unsafe_code)]

pub mod dataset;
mod evict;
pub mod fetch;
pub mod listing;
pub mod metrics;
mod scrub;
pub mod source;
mod store;
mod tier;

pub use store::{
    BLOCK_BYTES, BackgroundRates, BlockIndex, Eviction, Limit, Medium, MemoryTier, NotStored, Partial,
    PoolCapacity, Progress, Reservation, ReservePolicy, Store, StoreCounters, StoreError, StoreOptions,
    StoreSettings, TierUsage,
};
