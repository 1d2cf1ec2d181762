//! Small objects: fetched whole, kept whole.
//!
//! Whoever asks first starts the fetch; all others, on whatever way, wait for the same one. Room comes first: an
//! object that would not be kept is not fetched here but left to be served through, block by block.

use std::sync::Arc;

use bytes::Bytes;
use millpond_catalog::{Object, SourceInfo};
use millpond_core::ObjectId;
use millpond_core::ReadError;
use tracing::debug;

use super::catalogs::Catalogs;
use super::mounts::Mount;
use super::refresh::Refresher;
use super::sources::{ObjectLocation, Sources};
use super::transient::TransientBlocks;
use super::uses::OpenFiles;
use crate::fetch::{Budget, FetchError, FlightLost, MemoryPermit, Priority, Request, SingleFlight};
use crate::store::{BLOCK_BYTES, ReservePolicy, Store};

/// Where an object is after it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FetchOutcome {
    /// It was here.
    Cached,
    /// It was fetched by this very call, and is here.
    Fetched,
    /// Another call fetched it meanwhile, and it is here.
    Joined,
    /// There is no room for it.
    NotStored,
    /// There is no room for it that a load may take.
    NoFreeSpace,
}

/// What is shared by all ways to the source.
#[derive(Debug)]
pub(super) struct FetchContext {
    pub(super) store: Arc<Store>,
    pub(super) sources: Arc<Sources>,
    pub(super) budget: Budget,
    pub(super) catalogs: Arc<Catalogs>,
    pub(super) refresher: Arc<Refresher>,
    pub(super) transient: TransientBlocks,
    pub(super) uses: OpenFiles,
}

impl FetchContext {
    /// Finds whom to ask for an object.
    pub(super) fn mount(&self, id: ObjectId, source: &SourceInfo) -> Result<Arc<Mount>, ReadError> {
        self.sources.of(source).ok_or_else(|| ReadError::Unavailable {
            id,
            reason: format!("its source {} is not one of this Dataset any more", source.id),
        })
    }

    /// Builds the request for a part of an object.
    pub(super) fn request(object: &Object, range: std::ops::Range<u64>, urgency: Priority) -> Request {
        Request {
            key: object.key.clone(),
            validator: object.validator.clone(),
            size_bytes: object.size_bytes,
            range,
            urgency,
        }
    }

    /// Says what a reader is told, and asks for a new listing where the source changed.
    pub(super) fn read_error(&self, id: ObjectId, error: &FetchError) -> ReadError {
        match error {
            FetchError::Changed { .. } => {
                self.refresher.changed();
                ReadError::Changed { id }
            }
            FetchError::Denied { .. } | FetchError::Unavailable { .. } => ReadError::Unavailable {
                id,
                reason: error.to_string(),
            },
        }
    }
}

/// Fetches small objects.
#[derive(Debug)]
pub(super) struct SmallObjectFetcher {
    fetching: Arc<FetchContext>,
    flights: SingleFlight<ObjectId, Result<FetchOutcome, ReadError>>,
}

impl SmallObjectFetcher {
    pub(super) const fn new(
        fetching: Arc<FetchContext>,
        flights: SingleFlight<ObjectId, Result<FetchOutcome, ReadError>>,
    ) -> Self {
        Self { fetching, flights }
    }

    /// Makes sure that an object is here, if there is room for it that may be taken.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the fetch to go on for the cache.
    pub(super) async fn fetch(
        &self,
        located: ObjectLocation,
        urgency: Priority,
        demand: ReservePolicy,
    ) -> Result<FetchOutcome, ReadError> {
        loop {
            let mut started = false;
            let flight = self.flights.join(located.object.id, || {
                started = true;
                fetch_whole(Arc::clone(&self.fetching), located.clone(), urgency, demand)
            });
            match flight.await {
                Ok(Ok(FetchOutcome::Fetched)) if !started => return Ok(FetchOutcome::Joined),
                // What a load may not take a reader may.
                Ok(Ok(FetchOutcome::NoFreeSpace)) if demand == ReservePolicy::MayEvict => {}
                Ok(result) => return result,
                Err(FlightLost) => return Err(ReadError::Stopping),
            }
        }
    }
}

async fn fetch_whole(
    fetching: Arc<FetchContext>,
    located: ObjectLocation,
    urgency: Priority,
    demand: ReservePolicy,
) -> Result<FetchOutcome, ReadError> {
    let ObjectLocation { object, source } = located;
    let Object { id, size_bytes, .. } = object;
    // Looked up again inside the flight: the one before may have landed meanwhile.
    if fetching.store.is_ready(id, size_bytes).await {
        return Ok(FetchOutcome::Cached);
    }
    let Ok(room) = fetching.store.reserve(id, size_bytes, demand).await else {
        return Ok(match demand {
            ReservePolicy::MayEvict => FetchOutcome::NotStored,
            ReservePolicy::FreeOnly => FetchOutcome::NoFreeSpace,
        });
    };
    let memory = fetching.budget.acquire(size_bytes, urgency).await;
    let content = match size_bytes {
        0 => Vec::new(),
        _ => {
            let request = FetchContext::request(&object, 0..size_bytes, urgency);
            let mount = fetching.mount(id, &source)?;
            mount
                .origin
                .fetch(request)
                .await
                .map_err(|error| fetching.read_error(id, &error))?
        }
    };
    match fetching.store.put(room, content.clone()).await {
        Ok(()) => {
            fetching.uses.pin_stored(&fetching.store, id, size_bytes).await;
            Ok(FetchOutcome::Fetched)
        }
        Err(error) => {
            debug!(%id, %error, "an object that was fetched could not be kept");
            store_transient(&fetching, id, &content, memory);
            Ok(FetchOutcome::NotStored)
        }
    }
}

/// The reader who waits for an object that was not kept shall not cause a second request.
fn store_transient(fetching: &FetchContext, id: ObjectId, content: &[Bytes], mut memory: MemoryPermit) {
    let mut whole = Bytes::from(content.concat());
    let mut index = 0;
    while !whole.is_empty() {
        let length = usize::try_from(BLOCK_BYTES)
            .unwrap_or(usize::MAX)
            .min(whole.len());
        let block = whole.split_to(length);
        fetching
            .transient
            .insert(id, index, block, Arc::new(memory.split(length as u64)));
        index += 1;
    }
}
