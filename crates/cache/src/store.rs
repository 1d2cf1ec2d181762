//! The store of one Dataset on this node: its cached objects, and the space for more.
//!
//! A [`Store`] is one cache directory (and, where there is a memory tier, one tmpfs beside it). It knows objects
//! only by id and size: the fetcher knows their names and sources. The way of an object:
//!
//! - small: [`Store::reserve`] → fetch → [`Store::put`]. It is then complete, sealed, in `objects/` and, for the
//!   lookup that waits for it, in `landing/`.
//! - large: [`Store::partial`] → [`Partial::missing`] → fetch → [`Partial::write`], block by block and in any order;
//!   [`Partial::map`] serves reads of cached blocks. The last block publishes it.
//!
//! Whatever the disk does, a lookup returns either the right bytes or a miss: [`NotStored`] means that an object is not
//! stored, and that its reads bypass the cache.

mod options;
#[cfg(test)]
mod tests;
mod writers;

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

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
use crate::tier::directory::TierDir;
use crate::tier::settings::TierSettings;
pub use crate::tier::{
    BLOCK_BYTES, BackgroundRates, BlockIndex, Eviction, Limit, Medium, NotStored, Partial, PoolCapacity,
    Progress, ReservePolicy, StoreCounters, StoreError,
};
use crate::tier::{Counters, Tier, TierOptions};

/// Objects of so many bytes or fewer may be stored in the memory tier.
const MAX_MEMORY_OBJECT_BYTES: u64 = 8 * BLOCK_BYTES;

/// Space in a tier that is reserved for one object. Released when dropped, unless [`Store::put`] has used it.
#[derive(Debug)]
pub struct Reservation {
    id: ObjectId,
    size_bytes: u64,
    tier: Arc<Tier>,
    space: SpaceReservation,
}

impl Reservation {
    /// Returns the object that the space is for.
    pub const fn id(&self) -> ObjectId {
        self.id
    }

    /// Returns the object's length in bytes.
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Writes the object; blocks.
    fn fill(self, content: &[Bytes]) -> Result<(), NotStored> {
        let Self {
            id,
            size_bytes,
            tier,
            space,
        } = self;
        tier.objects().put(space, id, size_bytes, content)
    }
}

/// A tier and its evictor.
#[derive(Clone, Debug)]
struct Member {
    tier: Arc<Tier>,
    evictor: Arc<Evictor>,
}

/// The cached objects of one Dataset on this node.
#[derive(Debug)]
pub struct Store {
    /// Fastest first; the last one is the disk tier.
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
    /// Opens the cache directory, creating it if needed.
    ///
    /// It is scanned in the background: objects can be read immediately, space can be reserved when the scan is finished.
    /// Must be called within a tokio runtime, which runs the background work.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while another store has it open; [`StoreError::OtherIdentity`] and
    /// [`StoreError::OtherLayout`] for a directory that is not this Dataset's.
    pub fn open(options: StoreOptions, views: Arc<dyn Views>) -> Result<Arc<Self>, StoreError> {
        Self::open_with(options, views, BackgroundRates::default())
    }

    /// Opens the cache directory with other rates of the background work.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(
        options: StoreOptions,
        views: Arc<dyn Views>,
        rates: BackgroundRates,
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
                settings: TierSettings { limit, eviction },
                pool,
                identity: identity.clone(),
                boot_id: boot_id.clone(),
                landing_ttl: rates.landing_ttl,
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
            store.start(member, rates);
        }
        Ok(store)
    }

    /// Starts a tier's background work.
    fn start(&self, member: &Member, rates: BackgroundRates) {
        let Member { tier, evictor } = member.clone();
        let scanned = Arc::clone(&tier);
        self.tasks.spawn_blocking(move || {
            let scan = scanned.scan();
            if let Err(error) = scan.run() {
                error!(path = %scanned.path().display(), %error, "startup scan of the cache directory failed; nothing will be cached");
            }
            scan.finish();
        });
        self.tasks.spawn(Arc::clone(&evictor).run(self.stop.clone()));
        self.tasks.spawn(sweep(Arc::clone(&tier), self.stop.clone()));
        self.tasks
            .spawn(Scrubber::new(tier, evictor, rates).run(self.stop.clone()));
    }

    /// Returns the tiers' directories, fastest first.
    pub fn directories(&self) -> Vec<TierDirectories> {
        let below = |tier: &Tier, place: TierDir| tier.path().join(place.name());
        self.tiers()
            .map(|tier| TierDirectories {
                objects: below(tier, TierDir::Objects),
                landing: below(tier, TierDir::Landing),
            })
            .collect()
    }

    fn tiers(&self) -> impl Iterator<Item = &Arc<Tier>> {
        self.members.iter().map(|member| &member.tier)
    }

    /// Opens an object that is complete and verified; a small one that survived a crash of the machine is verified
    /// now, a large one becomes a [`Partial`] whose blocks are verified one by one.
    ///
    /// Counts as a use for eviction.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn object(&self, id: ObjectId, size_bytes: u64) -> Option<Arc<File>> {
        let may_be_verified_meanwhile = self.tiers().any(|tier| tier.unverified().has_any());
        let members = self.members.clone();
        let open = move || {
            let found = members
                .iter()
                .find_map(|member| member.tier.objects().open(id, size_bytes));
            // Corrupt objects are freed immediately.
            members
                .iter()
                .filter(|member| member.tier.corrupt().has_any())
                .for_each(|member| member.evictor.wake());
            found.map(Arc::new)
        };
        if let Some(file) = self.blocking(open).await.flatten() {
            return Some(file);
        }
        for tier in self.tiers().filter(|tier| tier.unverified().has_any()) {
            tier.scan().wait().await;
            let tier = Arc::clone(tier);
            let verify = move || tier.objects().verify(id, size_bytes);
            if let Some(file) = self.blocking(verify).await.flatten() {
                return Some(Arc::new(file));
            }
        }
        if may_be_verified_meanwhile {
            // The scrubber may have verified it between the two attempts.
            let tiers: Vec<_> = self.tiers().cloned().collect();
            let open = move || tiers.iter().find_map(|tier| tier.objects().open(id, size_bytes));
            return self.blocking(open).await.flatten().map(Arc::new);
        }
        None
    }

    /// Returns whether an object is complete and verified. One `stat` a tier; does not count as a use.
    pub fn has(&self, id: ObjectId) -> bool {
        self.tiers().any(|tier| tier.objects().has(id))
    }

    /// Returns whether an object is complete and verified; a small one that survived a crash of the machine is verified now.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn is_ready(&self, id: ObjectId, size_bytes: u64) -> bool {
        if self.has(id) {
            return true;
        }
        self.tiers().any(|tier| tier.unverified().has_any()) && self.object(id, size_bytes).await.is_some()
    }

    /// Links a complete object into `landing/`, for a lookup that has found nothing in `objects/`. Returns whether the link is
    /// there; it is not where the object is not cached, or is being evicted.
    ///
    /// Counts as a use for eviction.
    ///
    /// # Cancel safety
    /// Safe: at worst the link is there and no lookup uses it.
    pub async fn link_to_landing(&self, id: ObjectId) -> bool {
        let tiers: Vec<_> = self.tiers().cloned().collect();
        let link = move || tiers.iter().any(|tier| tier.objects().link_to_landing(id));
        self.blocking(link).await.unwrap_or(false)
    }

    /// Returns whether some blocks of an object are cached, and not all. Incomplete until it is [`scanned`](Self::scanned).
    pub fn has_partial(&self, id: ObjectId) -> bool {
        self.tiers().any(|tier| tier.partials().table().has(id))
    }

    /// Reserves space for an object that will be [`put`](Self::put) completely. May evict and wait for that, if the policy
    /// permits it.
    ///
    /// # Errors
    /// The object cannot be stored.
    ///
    /// # Cancel safety
    /// Safe: a dropped future has reserved nothing.
    pub async fn reserve(
        &self,
        id: ObjectId,
        size_bytes: u64,
        policy: ReservePolicy,
    ) -> Result<Reservation, NotStored> {
        for Member { tier, evictor } in &self.members {
            if tier.is_memory() && size_bytes > MAX_MEMORY_OBJECT_BYTES {
                continue;
            }
            let costs = tier.accounting().costs();
            let (cost, seal_is_file) = (costs.object(size_bytes), costs.seal_is_file(size_bytes));
            let space = if tier.is_memory() {
                // Where memory has no space: better on the disk now than in memory later.
                tier.scan().wait().await;
                if policy == ReservePolicy::MayEvict {
                    evictor.wake_under_pressure();
                }
                tier.reserve(id, cost, seal_is_file, policy)
            } else {
                evictor.reserve(id, cost, seal_is_file, policy).await
            };
            if let Some(space) = space {
                return Ok(Reservation {
                    id,
                    size_bytes,
                    tier: Arc::clone(tier),
                    space,
                });
            }
        }
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        Err(NotStored::Full)
    }

    /// Stores a complete object: when this returns, it is in `objects/` and in `landing/`.
    ///
    /// `content` must be exactly as long as the reservation's object, and must have been checked on arrival.
    ///
    /// # Errors
    /// The object was not stored.
    ///
    /// # Cancel safety
    /// Safe: the object is stored or not, never half.
    pub async fn put(&self, reservation: Reservation, content: Vec<Bytes>) -> Result<(), NotStored> {
        self.writers.put(reservation, content, &self.tasks).await
    }

    /// Opens what is cached of a large object, or reserves space for all of it.
    ///
    /// All concurrent callers share one [`Partial`]. For an object that is complete already it misses no block.
    ///
    /// # Errors
    /// There is no space for it.
    ///
    /// # Cancel safety
    /// Safe: at worst, a partial object without blocks is left.
    pub async fn partial(
        &self,
        id: ObjectId,
        size_bytes: u64,
        policy: ReservePolicy,
    ) -> Result<Arc<Partial>, NotStored> {
        if let Some(partial) = self.existing_partial(id, size_bytes).await {
            return Ok(partial);
        }
        let Member { tier, evictor } = &self.disk;
        let cost = tier.accounting().costs().partial(size_bytes);
        let Some(space) = evictor.reserve(id, cost, true, policy).await else {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            return Err(NotStored::Full);
        };
        let tier = Arc::clone(tier);
        let create = move || {
            let partial = tier.partials().create(space, id, size_bytes)?;
            // One without bytes is complete immediately.
            partial.publish_if_complete()?;
            Ok(partial)
        };
        self.blocking(create).await.unwrap_or(Err(NotStored::Failed))
    }

    /// Opens what is cached of an object; `None` where there is nothing yet. Reserves nothing.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn existing_partial(&self, id: ObjectId, size_bytes: u64) -> Option<Arc<Partial>> {
        self.scanned().await;
        let tiers: Vec<_> = self.tiers().cloned().collect();
        let open = move || {
            tiers.iter().find_map(|tier| {
                if let Some(file) = tier.objects().open(id, size_bytes) {
                    return Some(tier.partials().complete(id, size_bytes, file));
                }
                let partial = tier.partials().open(id, size_bytes)?;
                // After a kill between the last block and the renaming, it is published now; where that fails, it is read
                // as it is.
                partial.publish_if_complete().ok();
                tier.queue().touch(id);
                Some(partial)
            })
        };
        self.blocking(open).await.flatten()
    }

    /// Counts opens that the kernel served alone: the eviction queue is ordered by them too.
    pub fn count_kernel_opens(&self, opens: &[OpenCount]) {
        for queue in self.tiers().filter_map(|tier| tier.queue().get()) {
            for open in opens {
                // TinyLFU counts to 15.
                for _ in 0..open.times.min(15) {
                    queue.touch(open.id);
                }
            }
        }
    }

    /// Counts space of other files in the disk tier's directory (the catalogs) as used.
    pub fn set_aside(&self, bytes: u64, inodes: u64) {
        self.disk.tier.accounting().set_aside(DiskSpace { bytes, inodes });
        self.disk.evictor.wake_under_pressure();
    }

    /// Returns the bytes of objects on the disk tier that may be evicted.
    pub fn evictable_bytes(&self) -> u64 {
        let tier = &self.disk.tier;
        tier.queue()
            .get()
            .map_or(0, |_queue| tier.accounting().totals().object_bytes)
    }

    /// Evicts so many bytes of the disk tier, where it evicts, because other Datasets or the disk need them.
    ///
    /// # Cancel safety
    /// Safe: an eviction pass that has begun continues.
    pub async fn evict_bytes(&self, bytes: u64) {
        self.disk.tier.scan().wait().await;
        self.disk.evictor.evict_bytes(bytes).await;
    }

    /// Applies limits and eviction policy, and evicts what is above the limits where the tier evicts. Objects in use
    /// stay; until they are closed, and where nothing is evicted, no new object is stored.
    ///
    /// # Cancel safety
    /// Safe: an eviction pass that has begun continues.
    pub async fn apply_settings(&self, settings: StoreSettings) {
        let StoreSettings {
            disk_limit,
            memory_bytes,
            eviction,
        } = settings;
        for Member { tier, evictor } in &self.members {
            let limit = match tier.medium() {
                Medium::Disk => disk_limit,
                Medium::Memory => Limit {
                    bytes: memory_bytes,
                    inodes: None,
                },
            };
            tier.scan().wait().await;
            let changed = Arc::clone(tier);
            let apply = move || changed.settings().apply(TierSettings { limit, eviction });
            if let Some(Err(error)) = self.blocking(apply).await {
                tier.files().failed("scan for objects", &error);
            }
            evictor.shrink().await;
        }
    }

    /// Removes objects for which `is_referenced` returns `false`, unless a process has them open. Returns how many were found:
    /// where there were any, some may be in use, and still exist.
    ///
    /// `is_referenced` is called on a blocking thread.
    ///
    /// # Cancel safety
    /// Safe: some of them may be removed, and the rest not.
    pub async fn remove_unreferenced(
        &self,
        is_referenced: Arc<dyn Fn(ObjectId) -> bool + Send + Sync>,
    ) -> usize {
        let mut found = 0;
        for Member { tier, evictor } in &self.members {
            tier.scan().wait().await;
            let (searched, is_referenced) = (Arc::clone(tier), Arc::clone(&is_referenced));
            let unreferenced = self
                .blocking(move || searched.unreferenced(&*is_referenced))
                .await;
            match unreferenced {
                Some(Ok(unreferenced)) if unreferenced.is_empty() => {}
                Some(Ok(unreferenced)) => {
                    found += unreferenced.len();
                    evictor.evict_unreferenced(unreferenced).await;
                }
                Some(Err(error)) => tier.files().failed("scan for unreferenced objects", &error),
                None => {}
            }
        }
        found
    }

    /// Waits until the startup scans of the tiers are finished, so that [`usage`](Self::usage) is right.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn scanned(&self) {
        for tier in self.tiers() {
            tier.scan().wait().await;
        }
    }

    /// Returns the usage of each tier, fastest first. Too little until it is [`scanned`](Self::scanned).
    pub fn usage(&self) -> Vec<TierUsage> {
        self.tiers()
            .map(|tier| {
                let totals = tier.accounting().totals();
                TierUsage {
                    medium: tier.medium(),
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

    /// Returns the counts of what happened since the store was opened.
    pub fn counters(&self) -> StoreCounters {
        self.counters.snapshot()
    }

    /// Stops the background work, writes everything to disk and marks the stop as clean.
    ///
    /// Without it only time is lost: after the next boot all objects are verified before they are served.
    ///
    /// # Cancel safety
    /// Safe: a stop whose future is dropped is not a clean one.
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

    /// Runs work that blocks on the file system; `None` when the runtime is shutting down.
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
    let mut ticks = tokio::time::interval((tier.landing().ttl() / 8).max(Duration::from_millis(10)));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let expired = tier.landing().take_expired(Instant::now());
        if expired.is_empty() {
            continue;
        }
        let tier = Arc::clone(&tier);
        // An error means that the runtime is shutting down.
        tokio::task::spawn_blocking(move || tier.landing().remove_expired(expired))
            .await
            .ok();
    }
}
