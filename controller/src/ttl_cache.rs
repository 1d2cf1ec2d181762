//! Responses of the API server that are reused for a short time: objects that are created together often need the same
//! ones.

use std::hash::Hash;
use std::time::Duration;

use moka::future::Cache;

/// Responses that a cache holds; beyond it the least useful are requested again.
const MAX_ENTRIES: u64 = 4_096;

/// Returns a cache whose entries live for `ttl`. By `try_get_with` concurrent callers of one key share one request, and an
/// error is not cached.
pub(crate) fn new<K, V>(ttl: Duration) -> Cache<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    Cache::builder()
        .max_capacity(MAX_ENTRIES)
        .time_to_live(ttl)
        .build()
}
