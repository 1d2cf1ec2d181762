//! What a driver asks of a Dataset, answered.

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
use super::small_object::FetchOutcome;
use super::uses::ObjectPin;
use crate::fetch::Priority;
use crate::store::ReservePolicy;

/// An object that is here may be evicted before it is landed; what is served through FUSE instead stays so for long.
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
        let (found, place) = self.catalogs.find(&object)?;
        self.walks.on_miss(object.generation, &found.object, place);
        for _attempt in 0..LAND_ATTEMPTS {
            let fetch = self
                .small
                .fetch(found.clone(), Priority::Reader, ReservePolicy::MayEvict);
            match fetch.await? {
                FetchOutcome::Fetched => {
                    self.reads.landed(object.size_bytes);
                    return Ok(LandOutcome::Landed);
                }
                // It came between the kernel's look into the objects and this one, and its landing may be over.
                FetchOutcome::Cached | FetchOutcome::Joined if self.store.land(object.id).await => {
                    self.reads.opened_complete(object.id, 1, object.size_bytes);
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
                self.reads.opened_complete(object.id, 1, object.size_bytes);
                Ok(LocalCopy::Complete(file))
            }
            None => {
                self.reads.opened_incomplete();
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
        let stream = self.streams.get(&self.large, object, stream).await?;
        let ahead = match object.size_bytes <= self.small_object_bytes {
            // Without room for it: all of it in one request rather than a request a block.
            true => range.end..object.size_bytes,
            false => {
                let limit = self.large.read_ahead_limit(&stream.active);
                stream.pattern.lock().advance(&range, object.size_bytes, limit)
            }
        };
        let data = self.large.read(&stream.active, range, ahead).await?;
        self.reads.served(data.served());
        Ok(data)
    }

    fn file_opened(&self, object: ObjectRef, stream: StreamId, complete: Option<Arc<File>>) {
        let uses = &self.fetching.uses;
        let is_held = uses.opened(object.id, stream, complete.map(ObjectPin::File));
        if is_held || self.stop.is_cancelled() {
            return;
        }
        // What is here of it, and what came since somebody looked.
        let (fetching, stop) = (Arc::clone(&self.fetching), self.stop.clone());
        let find = async move { fetching.uses.pin_existing(&fetching.store, object).await };
        let task = async move { stop.run_until_cancelled(find).await.unwrap_or_default() };
        // From wherever it is called.
        drop(self.tasks.spawn_on(task, &self.runtime));
    }

    fn file_closed(&self, _object: ObjectRef, stream: StreamId) {
        self.streams.closed(stream);
        self.fetching.uses.closed(stream);
    }

    async fn is_complete(&self, object: ObjectRef) -> bool {
        self.store.has(object.id)
    }

    fn count_kernel_opens(&self, opens: &[OpenCount]) {
        self.store.used(opens);
        let newest = self.catalogs.newest();
        for OpenCount { id, times } in opens {
            let place = newest
                .as_ref()
                .and_then(|open| Some((open, open.catalog.find(*id)?)));
            let size_bytes = place
                .and_then(|(open, place)| open.catalog.image().inode(place.inode).ok())
                .map_or(0, |inode| inode.size_bytes);
            self.reads.opened_complete(*id, *times, size_bytes);
        }
    }

    fn retain_generations(&self, generations: &BTreeSet<Generation>) {
        self.catalogs.in_use(generations);
        self.refresher.forget_sources();
        let (bytes, inodes) = self.catalogs.disk_usage();
        self.store.set_aside(bytes, inodes);
    }
}
