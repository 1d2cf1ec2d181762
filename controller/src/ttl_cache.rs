//! Answers of the API server that are taken for what is, for a short time: objects that come together often ask the same.

use std::hash::Hash;
use std::time::Duration;

use moka::future::Cache;

/// Answers that are remembered at once; more of them are asked for more often.
const REMEMBERED: u64 = 4_096;

/// A memory of answers, each for `fresh`. By `try_get_with`, whoever asks while it is being asked waits for that one
/// request; an error is not remembered.
pub(crate) fn answers<K, V>(fresh: Duration) -> Cache<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    Cache::builder()
        .max_capacity(REMEMBERED)
        .time_to_live(fresh)
        .build()
}
