//! Fetching and storing complete small objects.
//!
//! Concurrent callers for one object, of whatever kind, share one fetch. Space is reserved first: an object that
//! would not be stored is not fetched here; it bypasses the cache, block by block.

use std::sync::Arc;

use bytes::Bytes;
use millpond_catalog::Object;
use millpond_core::{ObjectId, ReadError};
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::context::FetchContext;
use crate::dataset::sources::ObjectLocation;
use crate::fetch::{FlightLost, MemoryPermit, Priority, SingleFlight};
use crate::store::{BLOCK_BYTES, ReservePolicy};

/// The outcome of [`SmallObjectFetcher::fetch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataset) enum FetchOutcome {
    /// The object was cached.
    Cached,
    /// This very call fetched it; it is cached.
    Fetched,
    /// A concurrent call fetched it; it is cached.
    Joined,
    /// There is no space for it.
    NotStored,
    /// There is no free space for it, and the caller may not evict.
    NoFreeSpace,
}

/// Fetches small objects, each at most once at a time.
#[derive(Debug)]
pub(in crate::dataset) struct SmallObjectFetcher {
    context: Arc<FetchContext>,
    flights: SingleFlight<ObjectId, Result<FetchOutcome, ReadError>>,
}

impl SmallObjectFetcher {
    pub(in crate::dataset) fn new(context: Arc<FetchContext>, tasks: TaskTracker) -> Self {
        let flights = SingleFlight::new(tasks);
        Self { context, flights }
    }

    /// Fetches and stores an object unless it is cached, if `policy` finds space for it.
    ///
    /// # Cancel safety
    /// Dropping the future does not end the fetch: it completes for the cache.
    pub(in crate::dataset) async fn fetch(
        &self,
        location: ObjectLocation,
        priority: Priority,
        policy: ReservePolicy,
    ) -> Result<FetchOutcome, ReadError> {
        loop {
            let mut started = false;
            let flight = self.flights.join(location.object.id, || {
                started = true;
                fetch(Arc::clone(&self.context), location.clone(), priority, policy)
            });
            match flight.await {
                Ok(Ok(FetchOutcome::Fetched)) if !started => return Ok(FetchOutcome::Joined),
                // Joined a load: a reader may evict where a load may not.
                Ok(Ok(FetchOutcome::NoFreeSpace)) if policy == ReservePolicy::MayEvict => {}
                Ok(result) => return result,
                Err(FlightLost) => return Err(ReadError::Stopping),
            }
        }
    }
}

async fn fetch(
    context: Arc<FetchContext>,
    location: ObjectLocation,
    priority: Priority,
    policy: ReservePolicy,
) -> Result<FetchOutcome, ReadError> {
    let ObjectLocation { object, source } = location;
    let Object { id, size_bytes, .. } = object;
    // Checked again inside the flight: the previous one may have stored it.
    if context.store.is_ready(id, size_bytes).await {
        return Ok(FetchOutcome::Cached);
    }
    let Ok(reservation) = context.store.reserve(id, size_bytes, policy).await else {
        return Ok(match policy {
            ReservePolicy::MayEvict => FetchOutcome::NotStored,
            ReservePolicy::FreeOnly => FetchOutcome::NoFreeSpace,
        });
    };
    let memory = context.budget.acquire(size_bytes, priority).await;
    let content = match size_bytes {
        0 => Vec::new(),
        _ => {
            let request = FetchContext::request(&object, 0..size_bytes, priority);
            let mount = context.mount(id, &source)?;
            mount
                .origin
                .fetch(request)
                .await
                .map_err(|error| context.read_error(id, &error))?
        }
    };
    match context.store.put(reservation, content.clone()).await {
        Ok(()) => {
            context
                .open_files
                .pin_stored(&context.store, id, size_bytes)
                .await;
            Ok(FetchOutcome::Fetched)
        }
        Err(error) => {
            debug!(%id, %error, "failed to store a fetched object; it stays in memory for a short time");
            store_transient(&context, id, &content, memory);
            Ok(FetchOutcome::NotStored)
        }
    }
}

/// Holds the blocks of an object in memory, so that the reader that waits for it needs no second request.
fn store_transient(context: &FetchContext, id: ObjectId, content: &[Bytes], mut memory: MemoryPermit) {
    let mut rest = Bytes::from(content.concat());
    let mut index = 0;
    while !rest.is_empty() {
        let length = usize::try_from(BLOCK_BYTES).unwrap_or(usize::MAX).min(rest.len());
        let block = rest.split_to(length);
        context
            .transient
            .insert(id, index, block, Arc::new(memory.split(length as u64)));
        index += 1;
    }
}
