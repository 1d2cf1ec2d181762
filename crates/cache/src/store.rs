//! The face of the cache: what is kept on this node of one Dataset, and the room for more of it.
//!
//! A [`Store`] is one cache directory (and, where there is a memory tier, one tmpfs beside it). It knows objects
//! only by id and size: what they are and where they come from is the fetcher's business. The way of an object:
//!
//! - small: [`Store::reserve`] → fetch → [`Store::put`]. It is then complete, sealed, in `objects/` and, for the
//!   lookup that waits for it, in `landing/`.
//! - large: [`Store::partial`] → [`Partial::missing`] → fetch → [`Partial::write`], block by block and in any order;
//!   [`Partial::map`] answers reads of what is here. The last block publishes it.
//!
//! Whatever the disk does, the answer is either the right bytes or "not here": [`NoRoom`] says that something is not
//! kept, and that its reader is to be served through.

mod options;
#[cfg(test)]
mod tests;
mod writers;

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use millpond_core::ObjectId;
use millpond_core::{OpenCount, TierDirectories, Views};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

pub use self::options::{MemoryTier, StoreOptions, StoreSettings, TierUsage};
use self::writers::Writers;
use crate::evict::Evictor;
use crate::scrub::Scrubber;
use crate::tier::accounting::SpaceReservation;
use crate::tier::costs::DiskSpace;
use crate::tier::directory::Place;
use crate::tier::objects::shared;
use crate::tier::settings::TierSettings;
pub use crate::tier::{
    BLOCK_BYTES, BackgroundRates, BlockIndex, Eviction, Limit, Medium, NotStored, Partial, PoolCapacity,
    Progress, ReservePolicy, StoreCounters, StoreError,
};
use crate::tier::{Counters, Tier, TierOptions};

/// Objects of so many bytes or fewer may go to the memory tier.
const MEMORY_OBJECT_BYTES_MAX: u64 = 8 * BLOCK_BYTES;

/// Room in a tier, promised to one object. Given back when dropped, unless [`Store::put`] has used it.
#[derive(Debug)]
pub struct Reservation {
    id: ObjectId,
    size_bytes: u64,
    tier: Arc<Tier>,
    promise: SpaceReservation,
}

impl Reservation {
    /// The object that the room is for.
    pub const fn id(&self) -> ObjectId {
        self.id
    }

    /// Its length in bytes.
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Writes the object; blocks.
    fn fill(self, content: &[Bytes]) -> Result<(), NotStored> {
        let Self {
            id,
            size_bytes,
            tier,
            promise,
        } = self;
        tier.put(promise, id, size_bytes, content)
    }
}

/// A tier and what makes room in it.
#[derive(Clone, Debug)]
struct Member {
    tier: Arc<Tier>,
    evictor: Arc<Evictor>,
}

/// What is kept of one Dataset on this node.
#[derive(Debug)]
pub struct Store {
    /// Fastest first; the last one is the disk.
    members: Vec<Member>,
    disk: Member,
    writers: Arc<Writers>,
    counters: Arc<Counters>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Whether [`stop`](Self::stop) was called.
    stopped: Mutex<bool>,
}

impl Store {
    /// Opens the cache directory, making it if needed.
    ///
    /// What it holds is counted in the background: objects can be read at once, room is given out when that is done.
    /// Must be called within a tokio runtime, which runs the background work.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while another store has it open; [`StoreError::OtherIdentity`] and
    /// [`StoreError::OtherLayout`] for a directory that is not this Dataset's.
    pub fn open(options: StoreOptions, views: Arc<dyn Views>) -> Result<Arc<Self>, StoreError> {
        Self::open_with(options, views, BackgroundRates::default())
    }

    /// Opens the cache directory with another pace of the background work.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(
        options: StoreOptions,
        views: Arc<dyn Views>,
        pace: BackgroundRates,
    ) -> Result<Arc<Self>, StoreError> {
        let StoreOptions {
            disk,
            disk_limit,
            disk_pool,
            memory,
            eviction,
            boot_id,
            identity,
        } = options;
        let counters = Arc::new(Counters::default());
        let open = |medium, path, limit, pool| -> Result<Member, StoreError> {
            let options = TierOptions {
                medium,
                path,
                terms: TierSettings { limit, eviction },
                pool,
                identity: identity.clone(),
                boot_id: boot_id.clone(),
                landing_keep: pace.landing_keep,
            };
            let tier = Tier::open(options, Arc::clone(&counters))?;
            let evictor = Evictor::new(Arc::clone(&tier), Arc::clone(&views));
            Ok(Member { tier, evictor })
        };
        let mut members = Vec::new();
        if let Some(MemoryTier { path, bytes, pool }) = memory {
            members.push(open(
                Medium::Memory,
                path,
                Limit {
                    bytes: Some(bytes),
                    inodes: None,
                },
                pool,
            )?);
        }
        let disk = open(Medium::Disk, disk, disk_limit, disk_pool)?;
        members.push(disk.clone());
        let store = Arc::new(Self {
            members,
            disk,
            writers: Arc::new(Writers::default()),
            counters,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            stopped: Mutex::new(false),
        });
        for member in &store.members {
            store.start(member, pace);
        }
        Ok(store)
    }

    /// Starts a tier's background work.
    fn start(&self, member: &Member, pace: BackgroundRates) {
        let Member { tier, evictor } = member.clone();
        let counting = Arc::clone(&tier);
        self.tasks.spawn_blocking(move || {
            if let Err(error) = counting.scan() {
                error!(path = %counting.options().path.display(), %error, "failed to count the cache directory, nothing is kept");
            }
            counting.finish_scan();
        });
        self.tasks.spawn(Arc::clone(&evictor).run(self.stop.clone()));
        self.tasks.spawn(sweep(Arc::clone(&tier), self.stop.clone()));
        self.tasks
            .spawn(Scrubber::new(tier, evictor, pace).run(self.stop.clone()));
    }

    /// The tiers' directories, fastest first.
    pub fn directories(&self) -> Vec<TierDirectories> {
        let below = |tier: &Tier, place: Place| tier.options().path.join(place.name());
        self.tiers()
            .map(|tier| TierDirectories {
                objects: below(tier, Place::Objects),
                landing: below(tier, Place::Landing),
            })
            .collect()
    }

    fn tiers(&self) -> impl Iterator<Item = &Arc<Tier>> {
        self.members.iter().map(|member| &member.tier)
    }

    /// Opens an object that is complete and verified; a small one that came through a crash of the machine is verified
    /// now, a large one becomes a [`Partial`] whose blocks are verified one by one.
    ///
    /// Counts as a use for eviction.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn object(&self, id: ObjectId, size_bytes: u64) -> Option<Arc<File>> {
        let may_be_verified_meanwhile = self.tiers().any(|tier| tier.is_any_unverified());
        let members = self.members.clone();
        let open = move || {
            let found = members
                .iter()
                .find_map(|member| member.tier.open_object(id, size_bytes));
            // What was found to be corrupt goes at once.
            members
                .iter()
                .filter(|member| member.tier.has_corrupt())
                .for_each(|member| member.evictor.wake());
            found.map(shared)
        };
        if let Some(file) = self.blocking(open).await.flatten() {
            return Some(file);
        }
        for tier in self.tiers().filter(|tier| tier.is_any_unverified()) {
            tier.counted().await;
            let tier = Arc::clone(tier);
            if let Some(file) = self.blocking(move || tier.verify(id, size_bytes)).await.flatten() {
                return Some(shared(file));
            }
        }
        if may_be_verified_meanwhile {
            // Between the two looks the background may have put it back.
            let tiers: Vec<_> = self.tiers().cloned().collect();
            let open = move || tiers.iter().find_map(|tier| tier.open_object(id, size_bytes));
            return self.blocking(open).await.flatten().map(shared);
        }
        None
    }

    /// Whether an object is complete and verified. One `stat` a tier; does not count as a use.
    pub fn has(&self, id: ObjectId) -> bool {
        self.tiers().any(|tier| tier.has(id))
    }

    /// Whether an object is complete and verified; a small one that came through a crash of the machine is verified now.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn is_ready(&self, id: ObjectId, size_bytes: u64) -> bool {
        if self.has(id) {
            return true;
        }
        self.tiers().any(|tier| tier.is_any_unverified()) && self.object(id, size_bytes).await.is_some()
    }

    /// Makes sure that a complete object is in `landing/`, for a lookup that found nothing in `objects/` a moment ago.
    /// Says whether it is there; it is not where the object is not here, or being evicted right now.
    ///
    /// Counts as a use for eviction.
    ///
    /// # Cancel safety
    /// Safe: at worst the link is there and nobody looks at it.
    pub async fn land(&self, id: ObjectId) -> bool {
        let tiers: Vec<_> = self.tiers().cloned().collect();
        let land = move || tiers.iter().any(|tier| tier.land(id));
        self.blocking(land).await.unwrap_or(false)
    }

    /// Whether some blocks of an object are here, and not all. Too little until it is [`scanned`](Self::scanned).
    pub fn has_partial(&self, id: ObjectId) -> bool {
        self.tiers().any(|tier| tier.partials().has(id))
    }

    /// Promises room for an object that will be [`put`](Self::put) whole. May evict and wait for that, if the demand is so
    /// high.
    ///
    /// # Errors
    /// The object is not to be kept.
    ///
    /// # Cancel safety
    /// Safe: a dropped future has promised nothing.
    pub async fn reserve(
        &self,
        id: ObjectId,
        size_bytes: u64,
        demand: ReservePolicy,
    ) -> Result<Reservation, NotStored> {
        for Member { tier, evictor } in &self.members {
            if tier.is_memory() && size_bytes > MEMORY_OBJECT_BYTES_MAX {
                continue;
            }
            let costs = tier.ledger().costs();
            let (cost, seal_is_file) = (costs.object(size_bytes), costs.seal_is_file(size_bytes));
            let promise = if tier.is_memory() {
                // No room there: better on the disk now than in memory later.
                tier.counted().await;
                if demand == ReservePolicy::MayEvict {
                    evictor.wake_under_pressure();
                }
                tier.promise(id, cost, seal_is_file, demand)
            } else {
                evictor.reserve(id, cost, seal_is_file, demand).await
            };
            if let Some(promise) = promise {
                return Ok(Reservation {
                    id,
                    size_bytes,
                    tier: Arc::clone(tier),
                    promise,
                });
            }
        }
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        Err(NotStored::Full)
    }

    /// Keeps a whole object: when this returns, it is in `objects/` and in `landing/`.
    ///
    /// `content` must be exactly as long as the room was reserved for, and must have been checked on arrival.
    ///
    /// # Errors
    /// The object was not kept.
    ///
    /// # Cancel safety
    /// Safe: the object is kept or not, never half.
    pub async fn put(&self, room: Reservation, content: Vec<Bytes>) -> Result<(), NotStored> {
        self.writers.put(room, content, &self.tasks).await
    }

    /// Opens what is here of a large object, or reserves room for all of it.
    ///
    /// All callers at one time share one [`Partial`]. For an object that is complete already it has no block missing.
    ///
    /// # Errors
    /// There is no room for it.
    ///
    /// # Cancel safety
    /// Safe: at worst, a partial object without blocks is left.
    pub async fn partial(
        &self,
        id: ObjectId,
        size_bytes: u64,
        demand: ReservePolicy,
    ) -> Result<Arc<Partial>, NotStored> {
        if let Some(partial) = self.existing_partial(id, size_bytes).await {
            return Ok(partial);
        }
        let Member { tier, evictor } = &self.disk;
        let cost = tier.ledger().costs().partial(size_bytes);
        let Some(promise) = evictor.reserve(id, cost, true, demand).await else {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            return Err(NotStored::Full);
        };
        let tier = Arc::clone(tier);
        let make = move || {
            let partial = tier.new_partial(promise, id, size_bytes)?;
            // One without bytes is complete at once.
            partial.publish_if_complete()?;
            Ok(partial)
        };
        self.blocking(make).await.unwrap_or(Err(NotStored::Failed))
    }

    /// Opens what is here of an object, or `None` where there is nothing yet. Reserves nothing.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn existing_partial(&self, id: ObjectId, size_bytes: u64) -> Option<Arc<Partial>> {
        for tier in self.tiers() {
            tier.counted().await;
        }
        let tiers: Vec<_> = self.tiers().cloned().collect();
        let open = move || {
            tiers.iter().find_map(|tier| {
                if let Some(file) = tier.open_object(id, size_bytes) {
                    return Some(tier.complete_partial(id, size_bytes, file));
                }
                let partial = tier.existing_partial(id, size_bytes)?;
                // Killed between the last block and the renaming, it is published now; where that fails, it is read
                // as it is.
                partial.publish_if_complete().ok();
                if let Some(order) = tier.order() {
                    order.touch(id);
                }
                Some(partial)
            })
        };
        self.blocking(open).await.flatten()
    }

    /// Counts opens that the kernel answered alone: the eviction order goes by them.
    pub fn used(&self, opens: &[OpenCount]) {
        for order in self.tiers().filter_map(|tier| tier.order()) {
            for open in opens {
                // TinyLFU counts to 15.
                for _ in 0..open.times.min(15) {
                    order.touch(open.id);
                }
            }
        }
    }

    /// Counts what others keep in the disk tier's directory (the catalogs) as used.
    pub fn set_aside(&self, bytes: u64, inodes: u64) {
        self.disk.tier.ledger().set_aside(DiskSpace { bytes, inodes });
        self.disk.evictor.wake_under_pressure();
    }

    /// What of the disk may be evicted.
    pub fn evictable_bytes(&self) -> u64 {
        let tier = &self.disk.tier;
        tier.order()
            .map_or(0, |_order| tier.ledger().totals().object_bytes)
    }

    /// Evicts so much of the disk, where anything may be evicted, because others need it.
    ///
    /// # Cancel safety
    /// Safe: what was begun goes on.
    pub async fn give_way(&self, bytes: u64) {
        self.disk.tier.counted().await;
        self.disk.evictor.evict_bytes(bytes).await;
    }

    /// Sets how much may be held, and what makes room, and evicts what is too much where something is evicted. What is in
    /// use stays; until it goes, and where nothing is evicted, nothing new comes.
    ///
    /// # Cancel safety
    /// Safe: what was begun goes on.
    pub async fn apply_settings(&self, terms: StoreSettings) {
        let StoreSettings {
            disk_limit,
            memory_bytes,
            eviction,
        } = terms;
        for Member { tier, evictor } in &self.members {
            let limit = match tier.options().medium {
                Medium::Disk => disk_limit,
                Medium::Memory => Limit {
                    bytes: memory_bytes,
                    inodes: None,
                },
            };
            tier.counted().await;
            let changed = Arc::clone(tier);
            let set = self
                .blocking(move || changed.set_terms(TierSettings { limit, eviction }))
                .await;
            if let Some(Err(error)) = set {
                tier.failed("look for objects", &error);
            }
            evictor.shrink().await;
        }
    }

    /// Removes what `is_named` does not know, as far as nobody has it open. Says how much of that was found: where it was
    /// anything, some of it may be in use, and still be there.
    ///
    /// `is_named` is asked on a blocking thread.
    ///
    /// # Cancel safety
    /// Safe: some of it may be gone, and the rest not.
    pub async fn remove_unreferenced(&self, is_named: Arc<dyn Fn(ObjectId) -> bool + Send + Sync>) -> usize {
        let mut found = 0;
        for Member { tier, evictor } in &self.members {
            tier.counted().await;
            let (looked_at, is_named) = (Arc::clone(tier), Arc::clone(&is_named));
            let unnamed = self.blocking(move || looked_at.ids_without(&*is_named)).await;
            match unnamed {
                Some(Ok(unnamed)) if unnamed.is_empty() => {}
                Some(Ok(unnamed)) => {
                    found += unnamed.len();
                    evictor.evict_unreferenced(unnamed).await;
                }
                Some(Err(error)) => tier.failed("look for objects that no catalog names", &error),
                None => {}
            }
        }
        found
    }

    /// Waits until it is counted what the tiers hold, so that [`usage`](Self::usage) tells the truth.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn scanned(&self) {
        for tier in self.tiers() {
            tier.counted().await;
        }
    }

    /// What each tier holds, fastest first. Too little until it is [`scanned`](Self::scanned).
    pub fn usage(&self) -> Vec<TierUsage> {
        self.tiers()
            .map(|tier| {
                let totals = tier.ledger().totals();
                TierUsage {
                    medium: tier.options().medium,
                    capacity_bytes: totals.capacity.bytes,
                    used_bytes: totals.used.bytes,
                    capacity_inodes: totals.capacity.inodes,
                    used_inodes: totals.used.inodes,
                    objects: totals.objects,
                    object_bytes: totals.object_bytes,
                }
            })
            .collect()
    }

    /// What happened since the store was opened.
    pub fn counters(&self) -> StoreCounters {
        self.counters.snapshot()
    }

    /// Ends the background work, writes everything to disk and marks the stop as clean.
    ///
    /// Without it nothing is lost but time: after the next boot all objects are verified before they are served.
    ///
    /// # Cancel safety
    /// Safe: a stop that is not waited for is not a clean one.
    pub async fn stop(&self) {
        if std::mem::replace(&mut *self.stopped.lock(), true) {
            return;
        }
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        for tier in self.tiers() {
            let tier = Arc::clone(tier);
            // A failure is logged there, and means that the stop was not clean.
            tokio::task::spawn_blocking(move || tier.close().ok()).await.ok();
        }
    }

    /// Does something that blocks on the file system; `None` when the runtime is going down.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        self.tasks.spawn_blocking(work).await.ok()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Removes links in `landing/` whose time is over.
async fn sweep(tier: Arc<Tier>, stop: CancellationToken) {
    // Often enough that a link stays no more than an eighth longer than it should.
    let mut ticks =
        tokio::time::interval((tier.landing().keep() / 8).max(std::time::Duration::from_millis(10)));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let old = tier.landing().take_old(Instant::now());
        if old.is_empty() {
            continue;
        }
        let tier = Arc::clone(&tier);
        let sweeping = move || {
            // One that was landed again meanwhile has its time before it.
            old.into_iter()
                .filter(|id| !tier.landing().remembers(*id))
                .for_each(|id| tier.remove_landing_link(id));
        };
        // An error means that the runtime is going down.
        tokio::task::spawn_blocking(sweeping).await.ok();
    }
}
