//! Making room in a tier, exactly: what is given out again is free on the file system, and nothing that is in use goes.
//!
//! `moka` orders what is in the tier and names victims when it passes the high watermark. A pass of the [`Evictor`]
//! takes for each victim a write lease, which the kernel grants when nobody has the object open or mapped, hides
//! the object from new lookups, makes the views let go of a whole batch at once (a remount costs tens of
//! milliseconds), and then removes the files and gives their room back. Victims in use go back into the order.
//!
//! There is one task a tier; passes are its alone. Whoever needs room asks and waits for the next pass to end, so that
//! a reader that goes away leaves nothing half done. Where `Views::release` fails, the batch stays hidden and counted,
//! and the next pass tries again.

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
use crate::tier::eviction_queue::spare;
use crate::tier::objects::{EvictingObject, EvictionEnd, EvictionStart};
use crate::tier::partials::PartialEviction;
use crate::tier::{ReservePolicy, Tier};

/// Objects hidden before the views are asked to let go of them: a remount drops hot inodes too, so not for a few.
const BATCH_OBJECTS: usize = 1024;

/// Of the capacity: a pass that nobody waits for begins when so much is taken.
const PRESSURE_PERCENT: u64 = 96;

/// Attempts of one reservation, each after a pass that freed something for somebody.
const ATTEMPTS: usize = 8;

/// A reader is served through rather than kept waiting longer. Measured: a remount takes 20 to 650 ms.
const RESERVE_TIMEOUT: Duration = Duration::from_secs(5);

/// After a pass that freed nothing, the next one that nobody waits for.
const FUTILE_PASS_DELAY: Duration = Duration::from_millis(500);

/// Hidden objects that somebody held are tried again after so long, if nobody wants their room sooner: each attempt is
/// a remount.
const HELD_RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// How long a pass waits for space that will be free in a moment, before it evicts more instead.
const FREE_POLL_INTERVAL: Duration = Duration::from_millis(1);
const FREE_POLL_ATTEMPTS: usize = 20;

/// What the askers want, and how far the passes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PassStatus {
    /// The number of the last pass that ended.
    ended: u64,
    /// Whether it freed anything.
    freed: bool,
}

#[derive(Debug, Default)]
struct PendingDemand {
    /// The number of the pass that serves whoever asks now.
    next: u64,
    amount: DiskSpace,
}

/// Makes room in one tier.
pub(crate) struct Evictor {
    tier: Arc<Tier>,
    views: Arc<dyn Views>,
    wake: Notify,
    wanted: Mutex<PendingDemand>,
    passes: watch::Sender<PassStatus>,
    /// Objects hidden by earlier passes whose space could not be freed yet.
    held: Mutex<Vec<EvictingObject>>,
    /// Objects that nothing leads to any more, for the next pass.
    superseded: Mutex<Vec<ObjectId>>,
}

/// What became of some victims.
struct Batch {
    hidden: Vec<EvictingObject>,
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
            wanted: Mutex::new(PendingDemand {
                next: 1,
                amount: DiskSpace::default(),
            }),
            passes: watch::Sender::new(PassStatus::default()),
            held: Mutex::new(Vec::new()),
            superseded: Mutex::new(Vec::new()),
        })
    }

    /// Promises room, evicting for it where the tier evicts and the demand is so high.
    ///
    /// # Cancel safety
    /// Safe: a dropped future has promised nothing.
    pub(crate) async fn reserve(
        &self,
        id: ObjectId,
        cost: DiskSpace,
        seal_is_file: bool,
        demand: ReservePolicy,
    ) -> Option<SpaceReservation> {
        self.tier.counted().await;
        let attempt = || self.tier.promise(id, cost, seal_is_file, demand);
        if demand == ReservePolicy::FreeOnly {
            return attempt();
        }
        if let Some(promise) = attempt() {
            self.wake_under_pressure();
            return Some(promise);
        }
        // What does not fit into an empty tier is not worth a pass.
        if self.tier.order().is_none() || !cost.fits(self.tier.ledger().totals().capacity) {
            return None;
        }
        let waiting = async {
            for _ in 0..ATTEMPTS {
                let freed = self
                    .pass_for(self.tier.ledger().wanted(id, cost, seal_is_file))
                    .await;
                if let Some(promise) = attempt() {
                    return Some(promise);
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

    /// Takes objects away that nothing leads to any more, and waits for it. Those that are in use stay.
    ///
    /// # Cancel safety
    /// Safe: they go all the same.
    pub(crate) async fn evict_unreferenced(&self, superseded: Vec<ObjectId>) {
        self.superseded.lock().extend(superseded);
        self.pass_for(DiskSpace::default()).await;
    }

    /// Makes a pass where more is held than may be, and waits for it, for as long as a reader would.
    ///
    /// # Cancel safety
    /// Safe: the pass goes on.
    pub(crate) async fn shrink(&self) {
        let totals = self.tier.ledger().totals();
        if self.tier.order().is_some() && !totals.used.fits(totals.capacity) {
            tokio::time::timeout(RESERVE_TIMEOUT, self.pass_for(DiskSpace::default()))
                .await
                .ok();
        }
    }

    /// Evicts so much, where anything may be, and leaves it to others: of the pool, or of the disk.
    ///
    /// # Cancel safety
    /// Safe: the pass goes on, and this tier keeps what it frees until it is used.
    pub(crate) async fn evict_bytes(&self, bytes: u64) {
        if self.tier.order().is_none() {
            return;
        }
        let amount = DiskSpace { bytes, inodes: 0 };
        tokio::time::timeout(RESERVE_TIMEOUT, self.pass_for(amount))
            .await
            .ok();
        self.tier.ledger().return_surplus();
    }

    /// Asks for a pass, and waits for its end. Says whether it freed anything.
    async fn pass_for(&self, amount: DiskSpace) -> bool {
        let mut passes = self.passes.subscribe();
        let number = {
            let mut wanted = self.wanted.lock();
            wanted.amount = wanted.amount.plus(amount);
            wanted.next
        };
        self.wake.notify_one();
        // The sender is ours, so it cannot be gone.
        passes
            .wait_for(|passes| passes.ended >= number)
            .await
            .is_ok_and(|passes| passes.freed)
    }

    /// Makes a pass soon, if the tier is nearly full.
    pub(crate) fn wake_under_pressure(&self) {
        if self.is_under_pressure() {
            self.wake.notify_one();
        }
    }

    /// Makes a pass soon.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    fn is_under_pressure(&self) -> bool {
        let totals = self.tier.ledger().totals();
        let over = |used: u64, capacity: u64| used >= capacity / 100 * PRESSURE_PERCENT;
        self.tier.order().is_some()
            && (over(totals.used.bytes, totals.capacity.bytes)
                || over(totals.used.inodes, totals.capacity.inodes))
    }

    /// Makes passes until it is told to stop.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut freed = true;
        loop {
            let is_any_held = !self.held.lock().is_empty() || self.tier.lingering().is_any();
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(HELD_RETRY_INTERVAL), if is_any_held => {}
            }
            let is_asked = self.wanted.lock().amount != DiskSpace::default();
            if !freed && !is_asked {
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(FUTILE_PASS_DELAY) => {}
                    () = self.wake.notified() => self.wake.notify_one(),
                }
            }
            let (number, amount) = {
                let mut wanted = self.wanted.lock();
                let number = wanted.next;
                wanted.next += 1;
                (number, std::mem::take(&mut wanted.amount))
            };
            freed = self.pass(amount).await;
            self.passes.send_replace(PassStatus { ended: number, freed });
        }
        // Nobody waits for a pass that will not come.
        self.passes.send_replace(PassStatus {
            ended: u64::MAX,
            freed: false,
        });
    }

    /// Frees what the order says has to go, and goes on until `wanted` fits as well. Says whether anything was freed.
    async fn pass(&self, wanted: DiskSpace) -> bool {
        let mut freed = self.release(self.tier.take_corrupt()).await | self.wait_for_frees().await;
        freed |= self.pass_superseded().await;
        let Some(order) = self.tier.order() else {
            return freed;
        };
        // What goes for room of our own stays ours.
        let _evicting = self.tier.ledger().evicting();
        let mut spared = Vec::new();
        let mut pressed_bytes = 0;
        let mut crowded_bytes = 0;
        let capacity = self.tier.ledger().totals().capacity;
        loop {
            let victims = order.take_victims(BATCH_OBJECTS);
            // Without a wish there is no need to go for others' sake.
            let is_crowded = wanted.bytes > 0 && self.tier.ledger().is_pool_exhausted(wanted);
            let is_satisfied = !is_crowded && self.tier.ledger().totals().used.plus(wanted).fits(capacity);
            if victims.is_empty() {
                if is_satisfied || pressed_bytes >= capacity.bytes {
                    break;
                }
                if is_crowded {
                    // Others have the rest: the order goes by a capacity that is not there. A little more than is wanted,
                    // so that not every object needs a pass of its own.
                    let (full, held) = (spare(capacity).bytes, order.weight_bytes());
                    if crowded_bytes >= held {
                        break;
                    }
                    crowded_bytes = (crowded_bytes * 2).max(wanted.bytes).max(held / 32).min(held);
                    order.add_pressure(full.saturating_sub(held).saturating_add(crowded_bytes));
                    continue;
                }
                // The order knows neither what is promised nor what was spared: ask it for more by as much.
                pressed_bytes = (pressed_bytes * 2)
                    .max(wanted.bytes)
                    .max(capacity.bytes / 64)
                    .min(capacity.bytes);
                order.add_pressure(pressed_bytes);
                continue;
            }
            let Some(batch) = self.hide(victims).await else {
                break;
            };
            spared.extend(batch.in_use);
            freed |= batch.freed;
            freed |= self.release(batch.hidden).await;
            freed |= self.wait_for_frees().await;
        }
        order.add_pressure(0);
        self.tier
            .counters()
            .spared_objects
            .fetch_add(spared.len() as u64, Ordering::Relaxed);
        for (id, cost) in spared {
            order.insert(id, cost.bytes);
        }
        freed
    }

    /// Frees what nothing leads to any more, as far as nobody has it open. Says whether anything was freed.
    async fn pass_superseded(&self) -> bool {
        let superseded = std::mem::take(&mut *self.superseded.lock());
        let mut freed = false;
        for victims in superseded.chunks(BATCH_OBJECTS) {
            let Some(batch) = self.hide(victims.to_vec()).await else {
                break;
            };
            if let Some(order) = self.tier.order() {
                batch.hidden.iter().for_each(|hidden| order.remove(hidden.id));
            }
            freed |= batch.freed;
            freed |= self.release(batch.hidden).await;
        }
        freed
    }

    /// Hides what nobody has open; `None` when the runtime is going down.
    async fn hide(&self, victims: Vec<ObjectId>) -> Option<Batch> {
        let tier = Arc::clone(&self.tier);
        let hiding = tokio::task::spawn_blocking(move || {
            let mut batch = Batch {
                hidden: Vec::new(),
                in_use: Vec::new(),
                freed: false,
            };
            for id in victims {
                match hide(&tier, id) {
                    EvictionAttempt::Hidden(victim) => batch.hidden.push(victim),
                    EvictionAttempt::Freed => batch.freed = true,
                    EvictionAttempt::InUse(cost) => batch.in_use.push((id, cost)),
                    EvictionAttempt::Gone => {}
                }
            }
            batch
        });
        hiding.await.ok()
    }

    /// Waits a little for the space of what is gone to be free. Says whether any became free.
    async fn wait_for_frees(&self) -> bool {
        let mut freed = false;
        for _ in 0..FREE_POLL_ATTEMPTS {
            if !self.tier.lingering().is_any() {
                break;
            }
            let tier = Arc::clone(&self.tier);
            // An error means that the runtime is going down.
            freed |= tokio::task::spawn_blocking(move || tier.sweep_lingering())
                .await
                .unwrap_or(false);
            if self.tier.lingering().is_any() {
                tokio::time::sleep(FREE_POLL_INTERVAL).await;
            }
        }
        freed
    }

    /// Makes the views let go of hidden objects, these and those of earlier passes, and frees their space.
    async fn release(&self, hidden: Vec<EvictingObject>) -> bool {
        let mut all = std::mem::take(&mut *self.held.lock());
        all.extend(hidden);
        if all.is_empty() {
            return false;
        }
        let ids: Vec<_> = all.iter().map(|hidden| hidden.id).collect();
        if let Err(error) = self.views.release(&ids).await {
            warn!(%error, objects = ids.len(), "evicted objects are still held by views");
            self.tier
                .counters()
                .release_failures
                .fetch_add(1, Ordering::Relaxed);
            self.held.lock().extend(all);
            return false;
        }
        let tier = Arc::clone(&self.tier);
        let purging = tokio::task::spawn_blocking(move || {
            let mut still_held = Vec::new();
            let mut freed = false;
            for hidden in all {
                let condemned = hidden.is_condemned().then(|| shard_of(hidden.id));
                match tier.finish_eviction(hidden) {
                    EvictionEnd::Freed(cost) => {
                        freed = true;
                        count_evicted(&tier, cost);
                        // It may have been of another length than it was counted with.
                        if let Some(shard) = condemned {
                            recount(&tier, shard);
                        }
                    }
                    EvictionEnd::FreePending(cost) => count_evicted(&tier, cost),
                    EvictionEnd::Cancelled(id, cost) => tier.order_insert(id, cost),
                    EvictionEnd::InUse(hidden) => still_held.push(hidden),
                }
            }
            (still_held, freed)
        });
        let Ok((still_held, freed)) = purging.await else {
            return false;
        };
        self.held.lock().extend(still_held);
        freed
    }
}

enum EvictionAttempt {
    Hidden(EvictingObject),
    Freed,
    InUse(DiskSpace),
    Gone,
}

fn hide(tier: &Tier, id: ObjectId) -> EvictionAttempt {
    if tier.partials().has(id) {
        return match tier.evict_partial(id) {
            PartialEviction::Freed(cost) => {
                count_evicted(tier, cost);
                EvictionAttempt::Freed
            }
            PartialEviction::Lingers(cost) => {
                count_evicted(tier, cost);
                EvictionAttempt::Gone
            }
            PartialEviction::InUse => EvictionAttempt::InUse(
                tier.partials()
                    .size_bytes(id)
                    .map_or_else(DiskSpace::default, |size_bytes| {
                        tier.ledger().costs().partial(size_bytes)
                    }),
            ),
        };
    }
    match tier.begin_eviction(id) {
        EvictionStart::Hidden(hidden) => EvictionAttempt::Hidden(hidden),
        EvictionStart::InUse => match tier.size_on_disk(id) {
            Some(size_bytes) => EvictionAttempt::InUse(tier.ledger().costs().object(size_bytes)),
            None => EvictionAttempt::Gone,
        },
        EvictionStart::Gone => {
            // Deleted behind our back: its room is found by counting.
            recount(tier, shard_of(id));
            EvictionAttempt::Gone
        }
    }
}

fn recount(tier: &Tier, shard: usize) {
    if let Err(error) = tier.rescan_shard(shard) {
        tier.failed("count objects", &error);
    }
}

fn count_evicted(tier: &Tier, cost: DiskSpace) {
    tier.counters().evicted_objects.fetch_add(1, Ordering::Relaxed);
    tier.counters()
        .evicted_bytes
        .fetch_add(cost.bytes, Ordering::Relaxed);
}
