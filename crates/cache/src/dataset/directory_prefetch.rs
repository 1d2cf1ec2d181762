//! Prefetching the next files of a directory for a reader that accesses it sequentially.

use std::sync::Arc;

use futures::StreamExt;
use millpond_catalog::{Kind, Nid, Object, Place};
use millpond_core::{Generation, ReadError};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug};

use super::catalogs::Catalogs;
use super::read_counters::ReadCounters;
use super::read_path::{FetchOutcome, SmallObjectFetcher};
use super::sources::ObjectLocation;
use crate::fetch::Priority;
use crate::store::{ReservePolicy, Store};

mod sequential;

use sequential::{PrefetchRange, SequentialDetector};

/// Concurrent fetches of one directory's prefetch.
const MAX_CONCURRENT_FILES: usize = 32;

/// Directories prefetched concurrently; further ones are not prefetched.
const MAX_CONCURRENT_DIRECTORIES: usize = 8;

/// Bytes prefetched of one directory in one batch, as for a sequential reader.
const MAX_BATCH_BYTES: u64 = 64 << 20;

/// Distance in inode numbers within which a few parallel readers of one directory are: 16 files at about 10 slots
/// of 32 bytes each.
const NEAR: u64 = 160;

/// Detects sequential access to directories by its misses, and prefetches.
#[derive(Debug)]
pub(super) struct DirectoryPrefetcher {
    detector: SequentialDetector,
    catalogs: Arc<Catalogs>,
    store: Arc<Store>,
    small_objects: Arc<SmallObjectFetcher>,
    read_counters: Arc<ReadCounters>,
    small_object_bytes: u64,
    permits: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// The files of one prefetch.
#[derive(Debug, Default)]
struct Batch {
    objects: Vec<ObjectLocation>,
    due: u64,
    until: u64,
    cookie: u64,
}

impl DirectoryPrefetcher {
    pub(super) fn new(
        catalogs: Arc<Catalogs>,
        store: Arc<Store>,
        small_objects: Arc<SmallObjectFetcher>,
        read_counters: Arc<ReadCounters>,
        small_object_bytes: u64,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(MAX_CONCURRENT_DIRECTORIES));
        let detector = SequentialDetector::new(NEAR);
        Arc::new(Self {
            detector,
            catalogs,
            store,
            small_objects,
            read_counters,
            small_object_bytes,
            permits,
            tasks,
            stop,
        })
    }

    /// Records a miss, and starts a prefetch if the access is sequential.
    pub(super) fn on_miss(self: &Arc<Self>, generation: Generation, object: &Object, place: Place) {
        let Some(range) = self.detector.on_miss(place.parent.0, place.inode.0) else {
            return;
        };
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return;
        };
        let Some(batch) = self.next_files(generation, object, place, range) else {
            return;
        };
        self.detector
            .on_prefetch(place.parent.0, batch.due, batch.until, batch.cookie);
        debug!(files = batch.objects.len(), "prefetching a directory");
        let prefetcher = Arc::clone(self);
        let task = async move {
            let _permit = permit;
            tokio::select! {
                () = prefetcher.stop.cancelled() => {}
                () = prefetcher.fetch(batch.objects) => {}
            }
        };
        self.tasks.spawn(task.in_current_span());
    }

    async fn fetch(&self, objects: Vec<ObjectLocation>) {
        let fetches = futures::stream::iter(objects).map(|object| self.fetch_one(object));
        let mut fetches = std::pin::pin!(fetches.buffer_unordered(MAX_CONCURRENT_FILES));
        while let Some(fetched) = fetches.next().await {
            match fetched {
                Ok(FetchOutcome::Cached | FetchOutcome::Fetched | FetchOutcome::Joined) => {}
                // A reader of these files gets the error; the rest would fail too.
                Ok(FetchOutcome::NotStored | FetchOutcome::NoFreeSpace) | Err(_) => return,
            }
        }
    }

    async fn fetch_one(&self, object: ObjectLocation) -> Result<FetchOutcome, ReadError> {
        let id = object.object.id;
        self.read_counters.prefetch_started(id);
        let fetched = self
            .small_objects
            .fetch(object, Priority::Background, ReservePolicy::MayEvict)
            .await;
        if !matches!(fetched, Ok(FetchOutcome::Fetched)) {
            self.read_counters.prefetch_cancelled(id);
        }
        fetched
    }

    /// Returns the small files that follow in the directory and are not cached.
    fn next_files(
        &self,
        generation: Generation,
        object: &Object,
        place: Place,
        range: PrefetchRange,
    ) -> Option<Batch> {
        let open = self.catalogs.get(generation)?;
        let image = open.catalog.image();
        let cookie = match range.cookie {
            Some(cookie) => cookie,
            None => {
                let name = object.key.rsplit('/').next().unwrap_or(&object.key);
                image.lookup(place.parent, name.as_bytes()).ok()??.next
            }
        };
        let mut batch = Batch {
            until: range.after,
            cookie,
            ..Batch::default()
        };
        let mut bytes = 0_u64;
        let mut files = 0;
        for entry in image.read_dir(place.parent, cookie).ok()? {
            let entry = entry.ok()?;
            if files >= range.files || bytes >= MAX_BATCH_BYTES {
                break;
            }
            batch.cookie = entry.next;
            if entry.kind != Kind::File || entry.nid <= Nid(range.after) {
                continue;
            }
            files += 1;
            batch.until = entry.nid.0;
            if files <= range.files / 2 {
                batch.due = entry.nid.0;
            }
            let next = Place {
                inode: entry.nid,
                parent: place.parent,
            };
            let Ok(next) = open.locate(next) else {
                continue;
            };
            if next.object.size_bytes <= self.small_object_bytes && !self.store.has(next.object.id) {
                bytes = bytes.saturating_add(next.object.size_bytes);
                batch.objects.push(next);
            }
        }
        (!batch.objects.is_empty()).then_some(batch)
    }
}
