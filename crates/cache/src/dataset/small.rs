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
use super::sources::{Located, Sources};
use super::transient::TransientBlocks;
use super::uses::Uses;
use crate::fetch::{Budget, FetchError, FlightLost, Flights, Memory, Request, Urgency};
use crate::store::{BLOCK_BYTES, Demand, Store};

/// Where an object is after it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whole {
    /// It was here.
    Here,
    /// It was fetched by this very call, and is here.
    Fetched,
    /// Another call fetched it meanwhile, and it is here.
    Joined,
    /// There is no room for it.
    NoRoom,
    /// There is no room for it that a load may take.
    NoSpareRoom,
}

/// What is shared by all ways to the source.
#[derive(Debug)]
pub(super) struct Fetching {
    pub(super) store: Arc<Store>,
    pub(super) sources: Arc<Sources>,
    pub(super) budget: Budget,
    pub(super) catalogs: Arc<Catalogs>,
    pub(super) refresher: Arc<Refresher>,
    pub(super) transient: TransientBlocks,
    pub(super) uses: Uses,
}

impl Fetching {
    /// Finds whom to ask for an object.
    pub(super) fn mount(&self, id: ObjectId, source: &SourceInfo) -> Result<Arc<Mount>, ReadError> {
        self.sources.of(source).ok_or_else(|| ReadError::Unavailable {
            id,
            reason: format!("its source {} is not one of this Dataset any more", source.id),
        })
    }

    /// Builds the request for a part of an object.
    pub(super) fn request(object: &Object, range: std::ops::Range<u64>, urgency: Urgency) -> Request {
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
pub(super) struct Small {
    fetching: Arc<Fetching>,
    flights: Flights<ObjectId, Result<Whole, ReadError>>,
}

impl Small {
    pub(super) const fn new(
        fetching: Arc<Fetching>,
        flights: Flights<ObjectId, Result<Whole, ReadError>>,
    ) -> Self {
        Self { fetching, flights }
    }

    /// Makes sure that an object is here, if there is room for it that may be taken.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the fetch to go on for the cache.
    pub(super) async fn fetch(
        &self,
        located: Located,
        urgency: Urgency,
        demand: Demand,
    ) -> Result<Whole, ReadError> {
        loop {
            let mut started = false;
            let flight = self.flights.join(located.object.id, || {
                started = true;
                fetch_whole(Arc::clone(&self.fetching), located.clone(), urgency, demand)
            });
            match flight.await {
                Ok(Ok(Whole::Fetched)) if !started => return Ok(Whole::Joined),
                // What a load may not take a reader may.
                Ok(Ok(Whole::NoSpareRoom)) if demand == Demand::Evict => {}
                Ok(result) => return result,
                Err(FlightLost) => return Err(ReadError::Stopping),
            }
        }
    }
}

async fn fetch_whole(
    fetching: Arc<Fetching>,
    located: Located,
    urgency: Urgency,
    demand: Demand,
) -> Result<Whole, ReadError> {
    let Located { object, source } = located;
    let Object { id, size_bytes, .. } = object;
    // Looked up again inside the flight: the one before may have landed meanwhile.
    if fetching.store.is_ready(id, size_bytes).await {
        return Ok(Whole::Here);
    }
    let Ok(room) = fetching.store.reserve(id, size_bytes, demand).await else {
        return Ok(match demand {
            Demand::Evict => Whole::NoRoom,
            Demand::Spare => Whole::NoSpareRoom,
        });
    };
    let memory = fetching.budget.acquire(size_bytes, urgency).await;
    let content = match size_bytes {
        0 => Vec::new(),
        _ => {
            let request = Fetching::request(&object, 0..size_bytes, urgency);
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
            fetching.uses.came(&fetching.store, id, size_bytes).await;
            Ok(Whole::Fetched)
        }
        Err(error) => {
            debug!(%id, %error, "an object that was fetched could not be kept");
            keep_for_a_moment(&fetching, id, &content, memory);
            Ok(Whole::NoRoom)
        }
    }
}

/// The reader who waits for an object that was not kept shall not cause a second request.
fn keep_for_a_moment(fetching: &Fetching, id: ObjectId, content: &[Bytes], mut memory: Memory) {
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
