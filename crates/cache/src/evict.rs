//! Eviction from a tier, exactly: space that is released is free on the file system, and no object that is in use is removed.
//!
//! `moka` orders the objects of the tier and names victims when the high watermark is passed. A pass of the [`Evictor`]
//! takes for each victim a write lease, which the kernel grants when no process has the object open or mapped, renames
//! the object so that no new lookup finds it, makes the views release a whole batch together (a remount costs tens of
//! milliseconds), and then unlinks the files and releases their space. Victims in use return to the queue.
//!
//! One task per tier runs the passes, one after another. A caller that needs space adds its demand and waits for the end of
//! the next pass, so that a reader that is dropped leaves nothing half done. Where `Views::release` fails, the batch keeps
//! its names and its space, and the next pass tries again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use millpond_core::ObjectId;
use millpond_core::Views;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::tier::accounting::{SpaceReservation, shard_of};
use crate::tier::costs::DiskSpace;
use crate::tier::eviction::{EvictingObject, EvictionEnd, EvictionStart};
use crate::tier::eviction_queue::spare;
use crate::tier::partials::PartialEviction;
use crate::tier::{ReservePolicy, Tier};

/// Objects renamed before the views are called to release them: a remount drops hot inodes too, so not for a few.
const BATCH_OBJECTS: usize = 1024;

/// Percent of the capacity in use at which a pass begins before any reservation waits for one.
const PRESSURE_PERCENT: u64 = 96;

/// Attempts of one reservation, each after a pass that freed something for some caller.
const ATTEMPTS: usize = 8;

/// After it a reservation fails, and the reader bypasses the cache. Measured: a remount takes 20 to 650 ms.
const RESERVE_TIMEOUT: Duration = Duration::from_secs(5);

/// After a pass that freed nothing, delay of the next one that no caller waits for.
const FUTILE_PASS_DELAY: Duration = Duration::from_millis(500);

/// Interval of passes for objects that were in use at the end of their eviction, if no caller needs their space sooner: each
/// attempt is a remount.
const HELD_RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// How long a pass waits for inodes that the kernel is about to free, before it evicts more instead.
const FREE_POLL_INTERVAL: Duration = Duration::from_millis(1);
const FREE_POLL_ATTEMPTS: usize = 20;

/// How far the passes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PassStatus {
    /// The number of the last pass that ended.
    ended: u64,
    /// Whether it freed anything.
    freed: bool,
}

/// What the callers wait for.
#[derive(Debug, Default)]
struct PendingDemand {
    /// The number of the pass that serves a demand that is added now.
    next: u64,
    space: DiskSpace,
}

/// The evictor of one tier.
pub(crate) struct Evictor {
    tier: Arc<Tier>,
    views: Arc<dyn Views>,
    wake: Notify,
    demand: Mutex<PendingDemand>,
    passes: watch::Sender<PassStatus>,
    /// Objects renamed by earlier passes whose space could not be freed yet.
    held: Mutex<Vec<EvictingObject>>,
    /// Objects that no catalog references, for the next pass.
    unreferenced: Mutex<Vec<ObjectId>>,
}

/// Outcome of beginning the eviction of some victims.
struct Batch {
    begun: Vec<EvictingObject>,
    in_use: Vec<(ObjectId, DiskSpace)>,
    /// Whether space was freed already.
    freed: bool,
}

impl std::fmt::Debug for Evictor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Evictor")
            .field("tier", &self.tier)
            .finish_non_exhaustive()
    }
}

impl Evictor {
    pub(crate) fn new(tier: Arc<Tier>, views: Arc<dyn Views>) -> Arc<Self> {
        Arc::new(Self {
            tier,
            views,
            wake: Notify::new(),
            demand: Mutex::new(PendingDemand {
                next: 1,
                space: DiskSpace::default(),
            }),
            passes: watch::Sender::new(PassStatus::default()),
            held: Mutex::new(Vec::new()),
            unreferenced: Mutex::new(Vec::new()),
        })
    }

    /// Reserves space, evicting for it where the tier evicts and the policy permits it.
    ///
    /// # Cancel safety
    /// Safe: a dropped future has reserved nothing.
    pub(crate) async fn reserve(
        &self,
        id: ObjectId,
        cost: DiskSpace,
        seal_is_file: bool,
        policy: ReservePolicy,
    ) -> Option<SpaceReservation> {
        self.tier.scan().wait().await;
        let attempt = || self.tier.reserve(id, cost, seal_is_file, policy);
        if policy == ReservePolicy::FreeOnly {
            return attempt();
        }
        if let Some(reservation) = attempt() {
            self.wake_under_pressure();
            return Some(reservation);
        }
        // An object that does not fit into an empty tier is not worth a pass.
        if self.tier.queue().get().is_none() || !cost.fits(self.tier.accounting().totals().capacity) {
            return None;
        }
        let waiting = async {
            for _ in 0..ATTEMPTS {
                let freed = self
                    .pass_for(self.tier.accounting().wanted(id, cost, seal_is_file))
                    .await;
                if let Some(reservation) = attempt() {
                    return Some(reservation);
                }
                if !freed {
                    break;
                }
            }
            None
        };
        tokio::time::timeout(RESERVE_TIMEOUT, waiting)
            .await
            .ok()
            .flatten()
    }

    /// Evicts objects that no catalog references, and waits for it. Those that are in use stay.
    ///
    /// # Cancel safety
    /// Safe: they are evicted all the same.
    pub(crate) async fn evict_unreferenced(&self, unreferenced: Vec<ObjectId>) {
        self.unreferenced.lock().extend(unreferenced);
        self.pass_for(DiskSpace::default()).await;
    }

    /// Runs a pass where more is used than the capacity, and waits for it, for as long as a reservation would.
    ///
    /// # Cancel safety
    /// Safe: the pass continues.
    pub(crate) async fn shrink(&self) {
        let totals = self.tier.accounting().totals();
        if self.tier.queue().get().is_some() && !totals.used.fits(totals.capacity) {
            tokio::time::timeout(RESERVE_TIMEOUT, self.pass_for(DiskSpace::default()))
                .await
                .ok();
        }
    }

    /// Evicts so many bytes, where the tier evicts, and leaves them to others: of the pool, or of the disk.
    ///
    /// # Cancel safety
    /// Safe: the pass continues, and this tier keeps the space that it frees until it is used.
    pub(crate) async fn evict_bytes(&self, bytes: u64) {
        if self.tier.queue().get().is_none() {
            return;
        }
        let space = DiskSpace { bytes, inodes: 0 };
        tokio::time::timeout(RESERVE_TIMEOUT, self.pass_for(space))
            .await
            .ok();
        self.tier.accounting().return_surplus();
    }

    /// Adds a demand for a pass, and waits for the end of the pass. Returns whether it freed anything.
    async fn pass_for(&self, space: DiskSpace) -> bool {
        let mut passes = self.passes.subscribe();
        let number = {
            let mut demand = self.demand.lock();
            demand.space = demand.space.plus(space);
            demand.next
        };
        self.wake.notify_one();
        // The sender is part of this value, so it cannot be dropped.
        passes
            .wait_for(|passes| passes.ended >= number)
            .await
            .is_ok_and(|passes| passes.freed)
    }

    /// Runs a pass soon, if the tier is nearly full.
    pub(crate) fn wake_under_pressure(&self) {
        if self.is_under_pressure() {
            self.wake.notify_one();
        }
    }

    /// Runs a pass soon.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    fn is_under_pressure(&self) -> bool {
        let totals = self.tier.accounting().totals();
        let over = |used: u64, capacity: u64| used >= capacity / 100 * PRESSURE_PERCENT;
        self.tier.queue().get().is_some()
            && (over(totals.used.bytes, totals.capacity.bytes)
                || over(totals.used.inodes, totals.capacity.inodes))
    }

    /// Runs passes until it is stopped.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut freed = true;
        loop {
            let has_held = !self.held.lock().is_empty() || self.tier.unlinked().has_any();
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(HELD_RETRY_INTERVAL), if has_held => {}
            }
            let has_demand = self.demand.lock().space != DiskSpace::default();
            if !freed && !has_demand {
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(FUTILE_PASS_DELAY) => {}
                    () = self.wake.notified() => self.wake.notify_one(),
                }
            }
            let (number, space) = {
                let mut demand = self.demand.lock();
                let number = demand.next;
                demand.next += 1;
                (number, std::mem::take(&mut demand.space))
            };
            freed = self.pass(space).await;
            self.passes.send_replace(PassStatus { ended: number, freed });
        }
        // No caller waits for a pass that will not be run.
        self.passes.send_replace(PassStatus {
            ended: u64::MAX,
            freed: false,
        });
    }

    /// Evicts the victims that the queue names, and continues until `wanted` fits as well. Returns whether anything was freed.
    async fn pass(&self, wanted: DiskSpace) -> bool {
        let mut freed = self.finish(self.tier.corrupt().take()).await | self.wait_for_frees().await;
        freed |= self.pass_unreferenced().await;
        let Some(queue) = self.tier.queue().get() else {
            return freed;
        };
        // Space that this tier evicts for itself stays in its share of the pool.
        let _evicting = self.tier.accounting().evicting();
        let mut spared = Vec::new();
        let mut pressure_bytes = 0;
        let mut exhausted_bytes = 0;
        let capacity = self.tier.accounting().totals().capacity;
        loop {
            let victims = queue.take_victims(BATCH_OBJECTS);
            // Without a demand there is no need to evict because of the other tiers of the pool.
            let is_exhausted = wanted.bytes > 0 && self.tier.accounting().is_pool_exhausted(wanted);
            let is_satisfied =
                !is_exhausted && self.tier.accounting().totals().used.plus(wanted).fits(capacity);
            if victims.is_empty() {
                if is_satisfied || pressure_bytes >= capacity.bytes {
                    break;
                }
                if is_exhausted {
                    // Other tiers have the rest: the queue assumes a capacity that is not there. A little more than is
                    // wanted, so that not every object needs a pass of its own.
                    let (full, held) = (spare(capacity).bytes, queue.weight_bytes());
                    if exhausted_bytes >= held {
                        break;
                    }
                    exhausted_bytes = (exhausted_bytes * 2).max(wanted.bytes).max(held / 32).min(held);
                    queue.set_pressure(full.saturating_sub(held).saturating_add(exhausted_bytes));
                    continue;
                }
                // The queue knows neither reservations nor objects that were spared: make it name more by as much.
                pressure_bytes = (pressure_bytes * 2)
                    .max(wanted.bytes)
                    .max(capacity.bytes / 64)
                    .min(capacity.bytes);
                queue.set_pressure(pressure_bytes);
                continue;
            }
            let Some(batch) = self.begin(victims).await else {
                break;
            };
            spared.extend(batch.in_use);
            freed |= batch.freed;
            freed |= self.finish(batch.begun).await;
            freed |= self.wait_for_frees().await;
        }
        queue.set_pressure(0);
        self.tier
            .files()
            .counters()
            .spared_objects
            .fetch_add(spared.len() as u64, Ordering::Relaxed);
        for (id, cost) in spared {
            queue.insert(id, cost.bytes);
        }
        freed
    }

    /// Evicts unreferenced objects that no process has open. Returns whether anything was freed.
    async fn pass_unreferenced(&self) -> bool {
        let unreferenced = std::mem::take(&mut *self.unreferenced.lock());
        let mut freed = false;
        for victims in unreferenced.chunks(BATCH_OBJECTS) {
            let Some(batch) = self.begin(victims.to_vec()).await else {
                break;
            };
            if let Some(queue) = self.tier.queue().get() {
                batch.begun.iter().for_each(|object| queue.remove(object.id));
            }
            freed |= batch.freed;
            freed |= self.finish(batch.begun).await;
        }
        freed
    }

    /// Begins the eviction of victims that no process has open; `None` when the runtime is shutting down.
    async fn begin(&self, victims: Vec<ObjectId>) -> Option<Batch> {
        let tier = Arc::clone(&self.tier);
        let beginning = tokio::task::spawn_blocking(move || {
            let mut batch = Batch {
                begun: Vec::new(),
                in_use: Vec::new(),
                freed: false,
            };
            for id in victims {
                match begin(&tier, id) {
                    EvictionAttempt::Begun(victim) => batch.begun.push(victim),
                    EvictionAttempt::Freed => batch.freed = true,
                    EvictionAttempt::InUse(cost) => batch.in_use.push((id, cost)),
                    EvictionAttempt::NotFound => {}
                }
            }
            batch
        });
        beginning.await.ok()
    }

    /// Waits a little for the kernel to free unlinked inodes. Returns whether it freed any.
    async fn wait_for_frees(&self) -> bool {
        let mut freed = false;
        for _ in 0..FREE_POLL_ATTEMPTS {
            if !self.tier.unlinked().has_any() {
                break;
            }
            let tier = Arc::clone(&self.tier);
            // An error means that the runtime is shutting down.
            freed |= tokio::task::spawn_blocking(move || tier.unlinked().sweep())
                .await
                .unwrap_or(false);
            if self.tier.unlinked().has_any() {
                tokio::time::sleep(FREE_POLL_INTERVAL).await;
            }
        }
        freed
    }

    /// Makes the views release objects whose eviction has begun, these and those of earlier passes, and frees their space.
    async fn finish(&self, begun: Vec<EvictingObject>) -> bool {
        let mut all = std::mem::take(&mut *self.held.lock());
        all.extend(begun);
        if all.is_empty() {
            return false;
        }
        let ids: Vec<_> = all.iter().map(|object| object.id).collect();
        if let Err(error) = self.views.release(&ids).await {
            warn!(%error, objects = ids.len(), "views did not release evicted objects; space stays reserved, retried by the next eviction pass");
            self.tier
                .files()
                .counters()
                .release_failures
                .fetch_add(1, Ordering::Relaxed);
            self.held.lock().extend(all);
            return false;
        }
        let tier = Arc::clone(&self.tier);
        let finishing = tokio::task::spawn_blocking(move || {
            let mut still_held = Vec::new();
            let mut freed = false;
            for object in all {
                let corrupt_shard = object.is_corrupt().then(|| shard_of(object.id));
                match tier.eviction().finish(object) {
                    EvictionEnd::Freed(cost) => {
                        freed = true;
                        count_evicted(&tier, cost);
                        // It may have had another length than the one that it was counted with.
                        if let Some(shard) = corrupt_shard {
                            tier.shards().try_rescan(shard);
                        }
                    }
                    EvictionEnd::FreePending(cost) => count_evicted(&tier, cost),
                    EvictionEnd::Cancelled(id, cost) => tier.queue().insert(id, cost),
                    EvictionEnd::InUse(object) => still_held.push(object),
                }
            }
            (still_held, freed)
        });
        let Ok((still_held, freed)) = finishing.await else {
            return false;
        };
        self.held.lock().extend(still_held);
        freed
    }
}

/// Outcome of an attempt to evict a complete or partial object.
enum EvictionAttempt {
    /// No new lookup finds the complete object.
    Begun(EvictingObject),
    /// The space of the partial object is free.
    Freed,
    /// A process has it open or mapped.
    InUse(DiskSpace),
    /// It does not exist any more.
    NotFound,
}

fn begin(tier: &Tier, id: ObjectId) -> EvictionAttempt {
    let costs = tier.accounting().costs();
    if tier.partials().table().has(id) {
        return match tier.partials().evict(id) {
            PartialEviction::Freed(cost) => {
                count_evicted(tier, cost);
                EvictionAttempt::Freed
            }
            PartialEviction::FreePending(cost) => {
                count_evicted(tier, cost);
                EvictionAttempt::NotFound
            }
            PartialEviction::InUse => EvictionAttempt::InUse(
                tier.partials()
                    .table()
                    .size_bytes(id)
                    .map_or_else(DiskSpace::default, |size_bytes| costs.partial(size_bytes)),
            ),
        };
    }
    match tier.eviction().begin(id) {
        EvictionStart::Begun(object) => EvictionAttempt::Begun(object),
        EvictionStart::InUse => match tier.objects().size_on_disk(id) {
            Some(size_bytes) => EvictionAttempt::InUse(costs.object(size_bytes)),
            None => EvictionAttempt::NotFound,
        },
        EvictionStart::NotFound => {
            // Another process deleted it: a scan finds its space.
            tier.shards().try_rescan(shard_of(id));
            EvictionAttempt::NotFound
        }
    }
}

fn count_evicted(tier: &Tier, cost: DiskSpace) {
    let counters = tier.files().counters();
    counters.evicted_objects.fetch_add(1, Ordering::Relaxed);
    counters.evicted_bytes.fetch_add(cost.bytes, Ordering::Relaxed);
}
