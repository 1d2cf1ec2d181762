//! Many threads on a disk that is far too small: its limits hold at every moment, as the file system itself counts.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millpond_cache::{BackgroundRates, BlockIndex, Eviction, Limit, Partial, ReservePolicy, Store};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use crate::store::disk::{Disk, Kind, MIB, Taken};
use crate::store::objects::{Sample, open, options};

const LIMIT: Taken = Taken {
    bytes: 48 * MIB,
    inodes: 320,
};
const TASKS: u64 = 8;
const STEPS: usize = 250;
/// Several times what fits.
const OBJECTS: u64 = 800;

/// A file that a task holds open for some steps.
enum Held {
    File(#[expect(dead_code, reason = "held open")] Arc<File>),
    Partial(#[expect(dead_code, reason = "held open")] Arc<Partial>),
}

/// The steps of one task.
pub(crate) async fn work(store: Arc<Store>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut held = Vec::new();
    for _ in 0..STEPS {
        let sample = Sample::new(random.random_range(0..OBJECTS));
        match random.random_range(0..100) {
            0..50 if sample.is_large() => {
                held.extend(fill(&store, sample, &mut random).await.map(Held::Partial))
            }
            0..50 => drop(sample.put(&store).await.ok()),
            50..85 => held.extend(sample.check(&store).await.map(Held::File)),
            85..95 => drop(store.link_to_landing(sample.id()).await),
            95..97 => held.clear(),
            _ => {
                let sample = Sample::new(sample.number / 16 * 16);
                sample.put(&store).await.ok();
                if let Some(file) = sample.check(&store).await {
                    held.push(Held::File(file));
                    damage(&store.directories()[0].objects.join(sample.id().path()));
                    store.object(sample.id(), sample.size_bytes).await;
                }
            }
        }
        if held.len() > 6 {
            held.swap_remove(random.random_range(0..held.len()));
        }
    }
}

/// Writes some blocks of a large object, in any order, and reads the cached ones.
async fn fill(store: &Store, sample: Sample, random: &mut StdRng) -> Option<Arc<Partial>> {
    let partial = store
        .partial(sample.id(), sample.size_bytes, ReservePolicy::MayEvict)
        .await
        .ok()?;
    let mut missing = partial.missing(0..sample.size_bytes).await;
    missing.shuffle(random);
    for block in missing.into_iter().take(random.random_range(0..12)) {
        partial.write(block, vec![sample.block(block)]).await.ok()?;
    }
    for index in (0..sample.blocks()).map(BlockIndex) {
        let expected = sample.block(index);
        let start = u64::from(index.0) * MIB;
        if let Some(found) = partial.map(start..start + expected.len() as u64) {
            assert!(found[..] == expected[..], "{sample:?}, {index:?}");
        }
    }
    Some(partial)
}

/// Makes an object longer, within its last block on disk: the next open quarantines it, while other tasks have it open.
fn damage(path: &Path) {
    if let Ok(file) = OpenOptions::new().write(true).open(path)
        && let Ok(length) = file.metadata().map(|metadata| metadata.len())
        && !length.is_multiple_of(4096)
    {
        file.set_len(length + 1).unwrap();
    }
}

/// The lengths of the objects that were found corrupt and are not freed yet.
fn corrupt(cache: &Path) -> Vec<u64> {
    walkdir::WalkDir::new(cache.join("objects"))
        .into_iter()
        .map(Result::unwrap)
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"~"))
        .map(|entry| entry.metadata().unwrap().len())
        .collect()
}

fn hammer(kind: Kind, eviction: Eviction) {
    let disk = Disk::new(kind, 160 * MIB);
    let limit = Limit {
        bytes: Some(LIMIT.bytes),
        inodes: Some(LIMIT.inodes),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let over = AtomicBool::new(false);
    let highest = std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut highest = Taken::default();
            while !over.load(Ordering::Relaxed) {
                let Taken { bytes, inodes } = disk.taken_surely(LIMIT);
                highest.bytes = highest.bytes.max(bytes);
                highest.inodes = highest.inodes.max(inodes);
                std::thread::yield_now();
            }
            highest
        });
        let working = scope.spawn(|| {
            runtime.block_on(async {
                let open = || {
                    let options = options(&disk.cache(), limit, eviction, "boot");
                    open(options, BackgroundRates::default())
                };
                let store = open().await;
                let mut tasks = JoinSet::new();
                for seed in 0..TASKS {
                    tasks.spawn(work(Arc::clone(&store), seed));
                }
                tasks.join_all().await;
                let counters = store.counters();
                let is_right = match eviction {
                    Eviction::Never => counters.refused > 0 && counters.evicted_objects <= counters.corrupt,
                    Eviction::Lru | Eviction::TinyLfu => counters.evicted_objects > 100,
                };
                assert!(is_right, "{counters:?}");
                assert!(counters.corrupt > 0, "damage was found");
                assert_eq!(counters.failures, 0, "the disk itself was never full");
                store.stop().await;
                let before = store.usage()[0];
                drop(store);
                // Corrupt objects that no eviction pass has freed are removed when the store is opened.
                let corrupt = corrupt(&disk.cache());
                let store = open().await;
                store.scanned().await;
                let after = store.usage()[0];
                let damage: u64 = corrupt.iter().sum();
                assert_eq!(after.objects, before.objects - corrupt.len() as u64, "a new scan");
                // Each damage adds a byte.
                let added = (after.object_bytes + damage).abs_diff(before.object_bytes);
                assert!(added <= counters.corrupt, "{before:?}, {after:?}, {corrupt:?}");
                assert!(disk.taken().bytes <= after.used_bytes, "{after:?}");
                store.stop().await;
            });
        });
        let worked = working.join();
        over.store(true, Ordering::Relaxed);
        let highest = watching.join().unwrap();
        if let Err(panic) = worked {
            std::panic::resume_unwind(panic);
        }
        highest
    });
    assert!(
        highest.bytes <= LIMIT.bytes && highest.inodes <= LIMIT.inodes,
        "{kind:?} {eviction:?}: {highest:?} taken, {LIMIT:?} allowed"
    );
    assert!(
        highest.bytes > LIMIT.bytes / 10 * 8 || highest.inodes > LIMIT.inodes / 10 * 6,
        "{kind:?} {eviction:?}: {highest:?} of {LIMIT:?} used"
    );
}

#[test]
fn an_ext4_holds_its_limits_and_never_evicts() {
    hammer(Kind::Ext4, Eviction::Never);
}

#[test]
fn an_ext4_holds_its_limits_with_lru() {
    hammer(Kind::Ext4, Eviction::Lru);
}

#[test]
fn an_ext4_holds_its_limits_with_tinylfu() {
    hammer(Kind::Ext4, Eviction::TinyLfu);
}

#[test]
fn a_tmpfs_holds_its_limits_and_never_evicts() {
    hammer(Kind::Tmpfs, Eviction::Never);
}

#[test]
fn a_tmpfs_holds_its_limits_with_lru() {
    hammer(Kind::Tmpfs, Eviction::Lru);
}

#[test]
fn a_tmpfs_holds_its_limits_with_tinylfu() {
    hammer(Kind::Tmpfs, Eviction::TinyLfu);
}
