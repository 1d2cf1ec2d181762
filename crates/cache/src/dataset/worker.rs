//! The [`Worker`] that drivers talk to, implemented by a [`Dataset`].

use std::collections::BTreeSet;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use millpond_core::{
    CatalogFile, Data, Generation, LandOutcome, LocalCopy, ObjectRef, OpenCount, ReadError, ServedBytes,
    StreamId, TierDirectories, Worker,
};
use tokio::sync::watch;

use super::Dataset;
use super::read_path::{FetchOutcome, ObjectPin};
use crate::fetch::Priority;
use crate::store::ReservePolicy;

/// A cached object may be evicted before its landing link is made; after so many attempts FUSE serves it.
const LAND_ATTEMPTS: u32 = 3;

#[async_trait]
impl Worker for Dataset {
    fn catalogs(&self) -> watch::Receiver<Option<Arc<CatalogFile>>> {
        self.catalogs.watch()
    }

    fn tiers(&self) -> Vec<TierDirectories> {
        self.store.directories()
    }

    async fn fetch_to_landing(&self, object: ObjectRef) -> Result<LandOutcome, ReadError> {
        if object.size_bytes > self.small_object_bytes {
            return Ok(LandOutcome::ThroughFuse);
        }
        self.not_stopping()?;
        let (location, place) = self.catalogs.find(&object)?;
        self.directory_prefetcher
            .on_miss(object.generation, &location.object, place);
        for _attempt in 0..LAND_ATTEMPTS {
            let fetch = self
                .small_objects
                .fetch(location.clone(), Priority::Reader, ReservePolicy::MayEvict);
            match fetch.await? {
                FetchOutcome::Fetched => {
                    self.read_counters.landed(object.size_bytes);
                    return Ok(LandOutcome::Landed);
                }
                // Stored since the kernel's lookup, perhaps by a landing whose link was removed since.
                FetchOutcome::Cached | FetchOutcome::Joined
                    if self.store.link_to_landing(object.id).await =>
                {
                    self.read_counters
                        .opened_complete(object.id, 1, object.size_bytes);
                    return Ok(LandOutcome::Landed);
                }
                // Evicted meanwhile.
                FetchOutcome::Cached | FetchOutcome::Joined => {}
                FetchOutcome::NotStored | FetchOutcome::NoFreeSpace => break,
            }
        }
        Ok(LandOutcome::ThroughFuse)
    }

    async fn open_local(&self, object: ObjectRef) -> Result<LocalCopy, ReadError> {
        match self.store.object(object.id, object.size_bytes).await {
            Some(file) => {
                self.read_counters
                    .opened_complete(object.id, 1, object.size_bytes);
                Ok(LocalCopy::Complete(file))
            }
            None => {
                self.read_counters.opened_incomplete();
                Ok(LocalCopy::Incomplete)
            }
        }
    }

    async fn read(&self, object: ObjectRef, stream: StreamId, range: Range<u64>) -> Result<Data, ReadError> {
        self.not_stopping()?;
        let range = range.start..range.end.min(object.size_bytes);
        if range.is_empty() {
            return Ok(Data::Bytes(Bytes::new(), ServedBytes::default()));
        }
        let open_files = &self.fetch_context.open_files;
        let reader = match open_files.reader(object.id, stream) {
            Some(reader) => reader,
            None => open_files.start_reading(self.block_reader.open(object).await?, stream),
        };
        let ahead = match object.size_bytes <= self.small_object_bytes {
            // The store has no space for it: the rest in one request rather than a request per block.
            true => range.end..object.size_bytes,
            false => {
                let limit = self.block_reader.readahead_limit(&reader.state);
                reader.readahead.lock().advance(&range, object.size_bytes, limit)
            }
        };
        let data = self.block_reader.read(&reader.state, range, ahead).await?;
        self.read_counters.served(data.served());
        Ok(data)
    }

    fn file_opened(&self, object: ObjectRef, stream: StreamId, complete: Option<Arc<File>>) {
        let pin = complete.map(ObjectPin::File);
        let is_pinned = self.fetch_context.open_files.open(object.id, stream, pin);
        if is_pinned || self.stop.is_cancelled() {
            return;
        }
        // What is cached of it now, and what was stored since the driver looked.
        let (context, stop) = (Arc::clone(&self.fetch_context), self.stop.clone());
        let pin = async move { context.open_files.pin_existing(&context.store, object).await };
        let task = async move { stop.run_until_cancelled(pin).await.unwrap_or_default() };
        // The caller need not be in a runtime.
        drop(self.tasks.spawn_on(task, &self.runtime));
    }

    fn file_closed(&self, _object: ObjectRef, stream: StreamId) {
        self.fetch_context.open_files.close(stream);
    }

    async fn is_complete(&self, object: ObjectRef) -> bool {
        self.store.has(object.id)
    }

    fn count_kernel_opens(&self, opens: &[OpenCount]) {
        self.store.count_kernel_opens(opens);
        let newest = self.catalogs.newest();
        for OpenCount { id, times } in opens {
            let place = newest
                .as_ref()
                .and_then(|open| Some((open, open.catalog.find(*id)?)));
            let size_bytes = place
                .and_then(|(open, place)| open.catalog.image().inode(place.inode).ok())
                .map_or(0, |inode| inode.size_bytes);
            self.read_counters.opened_complete(*id, *times, size_bytes);
        }
    }

    fn retain_generations(&self, generations: &BTreeSet<Generation>) {
        self.catalogs.retain(generations);
        self.refresher.drop_unreferenced_sources();
        let (bytes, inodes) = self.catalogs.disk_usage();
        self.store.set_aside(bytes, inodes);
    }
}
