//! Several stores on one capacity: together they never pass it, and none evicts from another.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millpond_cache::{BackgroundRates, Eviction, Limit, NotStored, PoolCapacity, ReservePolicy, Store};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::store::disk::{Disk, Kind, MIB, Taken};
use crate::store::hammer::work;
use crate::store::objects::{Sample, open, options};

const CAPACITY: u64 = 48 * MIB;

async fn store(
    below: &Path,
    name: &str,
    quota: Option<u64>,
    eviction: Eviction,
    pool: &Arc<PoolCapacity>,
) -> Arc<Store> {
    let limit = Limit {
        bytes: quota,
        inodes: None,
    };
    let mut options = options(&below.join(name), limit, eviction, "boot");
    options.disk_pool = Some(Arc::clone(pool));
    open(options, BackgroundRates::default()).await
}

/// Small objects of about 100 KB only, which no two callers have in common.
fn small(from: u64, count: u64) -> impl Iterator<Item = Sample> {
    (from..)
        .map(|number| Sample::new(number / 8 * 16 + number % 8))
        .take(usize::try_from(count).unwrap())
}

fn used(store: &Store) -> u64 {
    store.usage()[0].used_bytes
}

async fn count_cached(store: &Store, samples: impl Iterator<Item = Sample>) -> usize {
    store.scanned().await;
    samples.filter(|sample| store.has(sample.id())).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_evicts_nothing_of_another_store() {
    let below = TempDir::new().unwrap();
    let pool = PoolCapacity::new(CAPACITY);
    let one = store(below.path(), "one", None, Eviction::Lru, &pool).await;
    let two = store(below.path(), "two", None, Eviction::Lru, &pool).await;
    for sample in small(0, 200) {
        sample.put(&one).await.unwrap();
    }
    // Many times what is left.
    for sample in small(1_000, 1_000) {
        sample.put(&two).await.unwrap();
        assert!(pool.used_bytes() <= CAPACITY);
    }
    assert_eq!(count_cached(&one, small(0, 200)).await, 200);
    let cached = count_cached(&two, small(1_000, 1_000)).await;
    assert!(cached > 100, "it uses what is free: {cached}");
    assert!(
        two.has(small(1_999, 1).next().unwrap().id()),
        "the newest is cached"
    );

    // Now the first store: it evicts its own objects.
    let before = count_cached(&two, small(1_000, 1_000)).await;
    for sample in small(3_000, 100) {
        sample.put(&one).await.unwrap();
    }
    assert_eq!(count_cached(&two, small(1_000, 1_000)).await, before);
    assert_eq!(count_cached(&one, small(3_000, 100)).await, 100);
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_concurrent_scans_evict_their_own() {
    let below = TempDir::new().unwrap();
    let pool = PoolCapacity::new(CAPACITY);
    let one = store(below.path(), "one", None, Eviction::Lru, &pool).await;
    let two = store(below.path(), "two", None, Eviction::Lru, &pool).await;
    for sample in small(0, 150) {
        sample.put(&one).await.unwrap();
    }
    for sample in small(0, 1_000) {
        sample.put(&two).await.unwrap();
    }
    let (first, second) = (used(&one), used(&two));
    let mut scans = JoinSet::new();
    for (number, store) in [(10_000, &one), (20_000, &two)] {
        let store = Arc::clone(store);
        scans.spawn(async move {
            for sample in small(number, 800) {
                // Refused where another reader of this store has just taken the space.
                sample.put(&store).await.ok();
            }
        });
    }
    while scans.join_next().await.is_some() {}
    // Neither lost more than what it keeps for its next objects.
    for (before, after) in [(first, used(&one)), (second, used(&two))] {
        assert!(after + before / 8 >= before, "{before} became {after}");
    }
    assert!(pool.used_bytes() <= CAPACITY);
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_holds_below_the_capacity_and_released_space_is_shared() {
    let below = TempDir::new().unwrap();
    let pool = PoolCapacity::new(CAPACITY);
    let quota = 16 * MIB;
    let one = store(below.path(), "one", Some(quota), Eviction::Never, &pool).await;
    let two = store(below.path(), "two", None, Eviction::Never, &pool).await;
    for sample in small(0, 400) {
        sample.put(&one).await.ok();
    }
    assert!(used(&one) <= quota && used(&one) > quota / 2);
    for sample in small(0, 600) {
        sample.put(&two).await.ok();
    }
    assert_eq!(pool.used_bytes(), used(&one) + used(&two));
    assert!(pool.used_bytes() <= CAPACITY && pool.used_bytes() > CAPACITY / 4 * 3);
    let late = small(9_000, 1).next().unwrap();
    assert_eq!(late.put(&two).await, Err(NotStored::Full));
    // The first store loses what no catalog references.
    one.remove_unreferenced(Arc::new(|_| false)).await;
    late.put(&two).await.unwrap();
    let left = used(&one);
    one.stop().await;
    let before = pool.used_bytes();
    drop(one);
    assert_eq!(pool.used_bytes(), before - left, "a dropped store has no share");
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_store_reserves_before_all_are_scanned() {
    let below = TempDir::new().unwrap();
    let pool = PoolCapacity::new(CAPACITY);
    for name in ["one", "two"] {
        let store = store(below.path(), name, Some(CAPACITY / 2), Eviction::Never, &pool).await;
        for sample in small(0, 400) {
            sample.put(&store).await.ok();
        }
        store.stop().await;
    }
    let pool = PoolCapacity::new(CAPACITY);
    let one = store(below.path(), "one", None, Eviction::Never, &pool).await;
    let two = store(below.path(), "two", None, Eviction::Never, &pool).await;
    for sample in small(5_000, 200) {
        sample.put(&one).await.ok();
        assert!(pool.used_bytes() <= CAPACITY);
    }
    two.scanned().await;
    assert_eq!(pool.used_bytes(), used(&one) + used(&two));
    one.stop().await;
    two.stop().await;
}

/// Limits a pool on a disk of which `reserve` bytes are to stay free, as a worker does. Returns how much should be evicted.
fn limit_pool(disk: &Disk, reserve: u64, pool: &PoolCapacity) -> u64 {
    let spare = i64::try_from(disk.free_bytes()).unwrap() - i64::try_from(reserve).unwrap();
    pool.limit_to_spare(spare)
}

#[tokio::test(flavor = "multi_thread")]
async fn other_files_on_the_disk_are_evicted_for() {
    let disk = Disk::new(Kind::Ext4, 200 * MIB);
    let below = disk.cache().parent().unwrap().to_owned();
    let (pool, reserve) = (PoolCapacity::new(100 * MIB), 40 * MIB);
    let scan = store(&below, "scan", None, Eviction::Lru, &pool).await;
    let kept = store(&below, "kept", None, Eviction::Never, &pool).await;
    assert_eq!(limit_pool(&disk, reserve, &pool), 0);
    assert_eq!(pool.withheld_bytes(), 0);
    for number in 0..300 {
        for (store, from) in [(&scan, 0), (&kept, 10_000)] {
            small(from + number, 1).next().unwrap().put(store).await.unwrap();
        }
    }

    let other = disk.other_file();
    // Half of what the first store uses.
    let excess = used(&scan) / 2;
    let much = disk.free_bytes() - reserve + excess;
    std::fs::write(&other, vec![1; usize::try_from(much).unwrap()]).unwrap();
    let excess = limit_pool(&disk, reserve, &pool);
    assert!(excess > 0 && pool.withheld_bytes() > 0);
    let new = small(20_000, 1).next().unwrap();
    assert_eq!(new.put(&kept).await, Err(NotStored::Full));
    assert_eq!(kept.evictable_bytes(), 0);
    kept.evict_bytes(excess).await;
    scan.evict_bytes(excess).await;
    let left = limit_pool(&disk, reserve, &pool);
    assert!(left < MIB, "{left} of {excess} were not evicted");
    scan.evict_bytes(left).await;
    assert_eq!(
        count_cached(&kept, small(10_000, 300)).await,
        300,
        "a store that never evicts keeps all"
    );

    // Both continue, one evicts its own objects, and the reserve stays.
    assert_eq!(limit_pool(&disk, reserve, &pool), 0);
    for sample in small(30_000, 300) {
        sample.put(&scan).await.unwrap();
        sample.put(&kept).await.ok();
    }
    let free = disk.free_bytes();
    assert!(free + MIB >= reserve, "{free} are free");

    std::fs::remove_file(other).unwrap();
    assert_eq!(limit_pool(&disk, reserve, &pool), 0);
    new.put(&kept).await.unwrap();
    scan.stop().await;
    kept.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reserved_space_is_not_given_out_again() {
    let below = TempDir::new().unwrap();
    let pool = PoolCapacity::new(CAPACITY);
    let store = store(below.path(), "one", None, Eviction::Never, &pool).await;
    store.scanned().await;
    let [one, two] = [1, 2].map(|number| small(number, 1).next().unwrap().id());
    let spare = i64::try_from(10 * MIB).unwrap();
    assert_eq!(pool.limit_to_spare(spare), 0);
    let reservation = store
        .reserve(one, 9 * MIB, ReservePolicy::MayEvict)
        .await
        .unwrap();
    // The file system still reports the same.
    assert_eq!(pool.limit_to_spare(spare), 0);
    assert_eq!(
        store.reserve(two, 2 * MIB, ReservePolicy::MayEvict).await.err(),
        Some(NotStored::Full)
    );
    assert!(
        pool.limit_to_spare(spare / 2) > 4 * MIB,
        "more is reserved than fits"
    );
    drop(reservation);
    assert_eq!(pool.limit_to_spare(spare), 0);
    drop(
        store
            .reserve(two, 2 * MIB, ReservePolicy::MayEvict)
            .await
            .unwrap(),
    );
    store.stop().await;
}

/// Both kinds of work on two stores of one disk, measured by its file system.
fn hammer(kind: Kind) {
    let disk = Disk::new(kind, 160 * MIB);
    let below = disk.cache().parent().unwrap().to_owned();
    let pool = PoolCapacity::new(CAPACITY);
    let quota = 20 * MIB;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let end = AtomicBool::new(false);
    let highest = std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let limit = Taken {
                bytes: CAPACITY,
                inodes: u64::MAX,
            };
            let (mut on_disk, mut shares) = (0, 0);
            while !end.load(Ordering::Relaxed) {
                on_disk = disk.taken_surely(limit).bytes.max(on_disk);
                shares = pool.used_bytes().max(shares);
                std::thread::yield_now();
            }
            (on_disk, shares)
        });
        let working = scope.spawn(|| {
            runtime.block_on(async {
                let one = store(&below, "one", None, Eviction::TinyLfu, &pool).await;
                let two = store(&below, "two", Some(quota), Eviction::Lru, &pool).await;
                let mut tasks = JoinSet::new();
                for seed in 0..6 {
                    let store = if seed % 2 == 0 { &one } else { &two };
                    tasks.spawn(work(Arc::clone(store), seed));
                }
                while let Some(done) = tasks.join_next().await {
                    done.unwrap();
                    assert!(used(&two) <= quota);
                }
                for store in [one, two] {
                    assert!(store.counters().evicted_objects > 50, "{:?}", store.counters());
                    assert_eq!(store.counters().failures, 0, "the disk itself was never full");
                    store.stop().await;
                }
            });
        });
        let worked = working.join();
        end.store(true, Ordering::Relaxed);
        let highest = watching.join().unwrap();
        if let Err(panic) = worked {
            std::panic::resume_unwind(panic);
        }
        highest
    });
    let (on_disk, shares) = highest;
    assert!(
        on_disk <= CAPACITY && shares <= CAPACITY,
        "{kind:?}: {on_disk} taken, {shares} in shares, {CAPACITY} allowed"
    );
    assert!(
        shares > CAPACITY / 10 * 8,
        "{kind:?}: {shares} of {CAPACITY} used"
    );
    assert_eq!(pool.used_bytes(), 0, "both are dropped");
}

#[test]
fn two_stores_on_an_ext4_hold_one_capacity() {
    hammer(Kind::Ext4);
}

#[test]
fn two_stores_on_a_tmpfs_hold_one_capacity() {
    hammer(Kind::Tmpfs);
}
