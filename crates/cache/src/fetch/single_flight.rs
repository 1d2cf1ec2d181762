//! Single-flight: concurrent requests for one key cause one fetch.
//!
//! The first caller starts a task that no waiter owns: a waiter may be dropped, and the task still completes for
//! the others and for the cache. A flight is in the table until its result is available; a later caller starts a
//! new one. So the task must check the cache again *inside* the flight: another flight may have completed between a
//! check from outside and the start.

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

/// The flight's task ended without a result: it panicked, or the runtime is shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the fetch task ended without a result")]
pub struct FlightLost;

type InFlight<K, V> = Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>;

/// The flights in progress.
pub struct SingleFlight<K, V> {
    in_flight: InFlight<K, V>,
    tasks: TaskTracker,
}

impl<K, V> fmt::Debug for SingleFlight<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights")
            .field("in_flight", &self.in_flight.lock().len())
            .finish()
    }
}

impl<K, V> SingleFlight<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Returns an empty table whose tasks `tasks` owns.
    pub fn new(tasks: TaskTracker) -> Self {
        Self {
            in_flight: Arc::default(),
            tasks,
        }
    }

    /// Waits for the result of the flight of `key`, which `start` creates if none is in progress. `start` runs
    /// under a lock: it creates the future and does nothing else.
    ///
    /// # Errors
    /// [`FlightLost`] when the task panicked.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the flight in progress.
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

    /// Starts the flight of `key` if none is in progress, without waiting for it.
    pub fn launch<F>(&self, key: K, start: impl FnOnce() -> F)
    where
        F: Future<Output = V> + Send + 'static,
    {
        drop(self.enter(key, start));
    }

    /// Returns whether a flight of `key` is in progress.
    pub fn is_in_flight(&self, key: &K) -> bool {
        self.in_flight.lock().contains_key(key)
    }

    fn enter<F>(&self, key: K, start: impl FnOnce() -> F) -> watch::Receiver<Option<V>>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let (publish, result) = watch::channel(None);
        let (key, flight) = {
            let mut in_flight = self.in_flight.lock();
            match in_flight.entry(key) {
                Entry::Occupied(flight) => return flight.get().clone(),
                Entry::Vacant(vacant) => {
                    // Before the insertion: if it panics, no entry is left behind.
                    let flight = start();
                    let key = vacant.key().clone();
                    vacant.insert(result.clone());
                    (key, flight)
                }
            }
        };
        let guard = FlightGuard {
            key,
            in_flight: Arc::clone(&self.in_flight),
        };
        // Without the lock: a runtime that is shutting down drops the task right here, and its guard with it.
        self.tasks.spawn(
            async move {
                // Owned by the task, so that a panic removes the flight from the table too.
                let guard = guard;
                let value = flight.await;
                publish.send_replace(Some(value));
                drop(guard);
            }
            .in_current_span(),
        );
        result
    }
}

/// Removes a flight from the table when its task ends, however it ends.
struct FlightGuard<K: Eq + Hash, V> {
    key: K,
    in_flight: InFlight<K, V>,
}

impl<K: Eq + Hash, V> Drop for FlightGuard<K, V> {
    fn drop(&mut self) {
        self.in_flight.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests;
