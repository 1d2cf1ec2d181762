//! The same thing wanted twice at the same time is fetched once.
//!
//! The first to ask starts a task that belongs to nobody who waits: any of them may go, and the task still runs
//! to its end for the others, and for the cache. A flight is known until its result is there; who comes later
//! starts a new one. So whoever starts a flight must look into the cache again *inside* it: between a look
//! from outside and the start another flight may have landed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// A flight's task ended without a result: it panicked, or the runtime is going down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the task that fetched ended without a result")]
pub struct FlightLost;

type Known<K, V> = Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>;

/// The flights that are under way.
pub struct SingleFlight<K, V> {
    known: Known<K, V>,
    tasks: TaskTracker,
}

impl<K, V> fmt::Debug for SingleFlight<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights")
            .field("under_way", &self.known.lock().len())
            .finish()
    }
}

impl<K, V> SingleFlight<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Makes a set of flights whose tasks `tasks` owns.
    pub fn new(tasks: TaskTracker) -> Self {
        Self {
            known: Arc::default(),
            tasks,
        }
    }

    /// Waits for the result of the flight of `key`, which `start` makes if there is none under way.
    /// `start` runs under a lock: it makes the future and does nothing else.
    ///
    /// # Errors
    /// [`FlightLost`] when the task panicked.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the flight under way.
    pub async fn join<F>(&self, key: K, start: impl FnOnce() -> F) -> Result<V, FlightLost>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut result = self.enter(key, start);
        let value = result
            .wait_for(Option::is_some)
            .await
            .map_err(|_closed| FlightLost)?;
        value.clone().ok_or(FlightLost)
    }

    /// Starts the flight of `key` if there is none under way, and does not wait for it.
    pub fn launch<F>(&self, key: K, start: impl FnOnce() -> F)
    where
        F: Future<Output = V> + Send + 'static,
    {
        drop(self.enter(key, start));
    }

    /// Whether a flight of `key` is under way.
    pub fn is_in_flight(&self, key: &K) -> bool {
        self.known.lock().contains_key(key)
    }

    fn enter<F>(&self, key: K, start: impl FnOnce() -> F) -> watch::Receiver<Option<V>>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let (publish, result) = watch::channel(None);
        let (key, flight) = {
            let mut known = self.known.lock();
            match known.entry(key) {
                Entry::Occupied(flight) => return flight.get().clone(),
                Entry::Vacant(vacant) => {
                    // Before the insertion: should it panic, nothing is left behind.
                    let flight = start();
                    let key = vacant.key().clone();
                    vacant.insert(result.clone());
                    (key, flight)
                }
            }
        };
        let landing = FlightGuard {
            key,
            known: Arc::clone(&self.known),
        };
        // Without the lock: a runtime that is going down drops the task right here, and its landing with it.
        self.tasks.spawn(
            async move {
                // Owned by the task, so that a panic takes the flight out of the table too.
                let landing = landing;
                let value = flight.await;
                publish.send_replace(Some(value));
                drop(landing);
            }
            .in_current_span(),
        );
        result
    }
}

/// Takes a flight out of the table when its task ends, however it ends.
struct FlightGuard<K: Eq + Hash, V> {
    key: K,
    known: Known<K, V>,
}

impl<K: Eq + Hash, V> Drop for FlightGuard<K, V> {
    fn drop(&mut self) {
        self.known.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests;
