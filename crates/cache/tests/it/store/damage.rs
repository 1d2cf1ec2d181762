//! Disks that are full, bits that flip, directories that are deleted or cannot be read: misses and counters, never wrong bytes.

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millpond_cache::{
    BackgroundRates, BlockIndex, Eviction, Limit, NotStored, Progress, ReservePolicy, Store,
};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use tempfile::TempDir;

use crate::store::disk::{Disk, Kind, MIB};
use crate::store::objects::{self, Sample, options};

/// In the first shard, where every round through the tier begins.
const SMALL: Sample = Sample {
    number: 32,
    size_bytes: 150_000,
};
const LARGE: Sample = Sample {
    number: 64,
    size_bytes: 9 * MIB + 5,
};

async fn open_with(cache: &Path, boot_id: &str, rates: BackgroundRates) -> Arc<Store> {
    let limit = Limit {
        bytes: Some(64 * MIB),
        inodes: None,
    };
    objects::open(options(cache, limit, Eviction::Never, boot_id), rates).await
}

async fn open(cache: &Path) -> Arc<Store> {
    open_with(cache, "boot", BackgroundRates::default()).await
}

/// Ends a store without the mark of a clean stop: as a crash of the machine would, a while after its last write.
async fn crash(store: Arc<Store>, cache: &Path) {
    store.stop().await;
    drop(store);
    let path = cache.join("state.json");
    let state = std::fs::read_to_string(&path).unwrap();
    let crashed = state.replace("\"clean\":true", "\"clean\":false");
    assert_ne!(state, crashed);
    std::fs::write(path, crashed).unwrap();
}

fn flip(path: &Path, at: u64) {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    file.sync_all().unwrap();
}

/// Fetches a large object.
async fn fill(store: &Store, sample: Sample) {
    let partial = store
        .partial(sample.id(), sample.size_bytes, ReservePolicy::MayEvict)
        .await
        .unwrap();
    for block in partial.missing(0..sample.size_bytes).await {
        partial.write(block, vec![sample.block(block)]).await.unwrap();
    }
    assert!(partial.complete().is_some());
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(120), waiting).await;
    assert!(waited.is_ok(), "timed out waiting for {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stores_nothing_wrong_and_recovers() {
    for kind in [Kind::Ext4, Kind::Tmpfs] {
        let disk = Disk::new(kind, 64 * MIB);
        let store = open(&disk.cache()).await;
        SMALL.put(&store).await.unwrap();
        // Another process takes the space that the tier is configured to use.
        let mut other = std::fs::File::create(disk.other_file()).unwrap();
        std::io::copy(&mut std::io::repeat(7), &mut other).unwrap_err();
        other.sync_all().ok();
        let mut refused = 0;
        for sample in (0..40).map(|number| Sample::new(100 + number * 16)) {
            match sample.put(&store).await {
                Ok(()) => assert!(sample.check(&store).await.is_some()),
                Err(NotStored::Failed) => {
                    refused += 1;
                    assert!(sample.check(&store).await.is_none());
                }
                Err(NotStored::Full) => panic!("{kind:?}: by its accounts the tier is not full"),
            }
        }
        assert!(refused > 30, "{kind:?}: {refused}");
        assert!(store.counters().failures >= refused);
        let partial = store
            .partial(LARGE.id(), LARGE.size_bytes, ReservePolicy::MayEvict)
            .await;
        assert_eq!(partial.map(|_| ()), Err(NotStored::Failed), "{kind:?}");
        assert!(SMALL.check(&store).await.is_some(), "{kind:?}");
        let used = store.usage()[0];
        drop(other);
        std::fs::remove_file(disk.other_file()).unwrap();
        // Failed writes have left nothing.
        assert!(disk.taken().bytes <= used.used_bytes, "{kind:?}: {used:?}");
        for sample in (0..40).map(|number| Sample::new(100 + number * 16)) {
            sample.put(&store).await.unwrap();
            assert!(sample.check(&store).await.is_some());
        }
        fill(&store, LARGE).await;
        assert!(LARGE.check(&store).await.is_some(), "{kind:?}");
        assert_eq!(store.counters().corrupt, 0);
        store.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_another_boot_nothing_is_served_before_its_checksums_were_read() {
    let folder = TempDir::new().unwrap();
    let cache = folder.path().join("cache");
    let store = open(&cache).await;
    let decoy = Sample {
        number: 0,
        size_bytes: 4_096,
    };
    // Not in that shard.
    let large = Sample { number: 79, ..LARGE };
    let others: Vec<_> = (1..40).map(|number| Sample::new(number * 16 + 1)).collect();
    for sample in others.iter().chain([&decoy]) {
        sample.put(&store).await.unwrap();
    }
    fill(&store, large).await;
    crash(store, &cache).await;
    let object = |sample: Sample| cache.join("objects").join(sample.id().path());
    let flipped: Vec<_> = others.iter().copied().step_by(3).collect();
    for sample in &flipped {
        flip(&object(*sample), sample.size_bytes / 2);
    }
    flip(&object(large), 3 * MIB + 17);

    // In the background the scrubber gets no further than an object of the first shard.
    let rates = BackgroundRates {
        verify_bytes_per_second: 1,
        ..BackgroundRates::default()
    };
    let store = open_with(&cache, "another boot", rates).await;
    store.scanned().await;
    for sample in others.iter().chain([&large]) {
        assert!(!store.has(sample.id()), "{sample:?}");
    }
    for sample in &others {
        let found = sample.check(&store).await;
        assert_eq!(found.is_none(), flipped.contains(sample), "{sample:?}");
        // A right object is served as before, and not read again.
        assert_eq!(store.has(sample.id()), found.is_some());
    }
    assert_eq!(store.counters().corrupt, flipped.len() as u64);
    // The right blocks of a large object stay.
    assert!(large.check(&store).await.is_none());
    let partial = store
        .partial(large.id(), large.size_bytes, ReservePolicy::MayEvict)
        .await
        .unwrap();
    assert!(partial.map(0..1).is_none(), "not before it was checked");
    assert_eq!(partial.missing(0..large.size_bytes).await, [BlockIndex(3)]);
    assert_eq!(store.counters().corrupt, flipped.len() as u64 + 1);
    let written = partial
        .write(BlockIndex(3), vec![large.block(BlockIndex(3))])
        .await;
    assert!(matches!(written, Ok(Progress::Complete(_))));
    assert!(large.check(&store).await.is_some());
    // Objects with flipped bits are fetched again.
    for sample in &flipped {
        sample.put(&store).await.unwrap();
        assert!(sample.check(&store).await.is_some());
    }
    store.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_another_boot_a_lookup_verifies_what_it_links() {
    let folder = TempDir::new().unwrap();
    let cache = folder.path().join("cache");
    let store = open(&cache).await;
    let (right, wrong) = (Sample::new(33), Sample::new(49));
    // So that the background is busy for as long as the test takes.
    let decoy = Sample {
        number: 0,
        size_bytes: 4_096,
    };
    for sample in [decoy, right, wrong] {
        sample.put(&store).await.unwrap();
    }
    crash(store, &cache).await;
    flip(&cache.join("objects").join(wrong.id().path()), 99);
    let rates = BackgroundRates {
        verify_bytes_per_second: 1,
        ..BackgroundRates::default()
    };
    let store = open_with(&cache, "another boot", rates).await;
    for (sample, is_right) in [(right, true), (wrong, false)] {
        assert!(
            !store.link_to_landing(sample.id()).await,
            "not verified yet: {sample:?}"
        );
        assert_eq!(store.is_ready(sample.id(), sample.size_bytes).await, is_right);
        assert_eq!(store.link_to_landing(sample.id()).await, is_right);
    }
    assert_eq!(store.counters().corrupt, 1);
    store.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scrubber_finds_a_flipped_bit() {
    for sample in [SMALL, LARGE] {
        let folder = TempDir::new().unwrap();
        let cache = folder.path().join("cache");
        let store = open(&cache).await;
        if sample.is_large() {
            fill(&store, sample).await;
        } else {
            sample.put(&store).await.unwrap();
        }
        let before = store.usage()[0].used_bytes;
        flip(
            &cache.join("objects").join(sample.id().path()),
            sample.size_bytes - 1,
        );
        until("the scrubber", || store.counters().corrupt == 1).await;
        assert!(!store.has(sample.id()));
        assert!(sample.check(&store).await.is_none());
        until("its space", || store.usage()[0].used_bytes < before).await;
        assert_eq!(store.usage()[0].objects, 0);
        store.stop().await;
    }
}

/// Runs `test` on threads for which the modes of files are enforced, as for an unprivileged owner.
fn without_privileges(test: impl Future<Output = ()> + Send) {
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            let mut sets = capabilities(None).unwrap();
            sets.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
            set_capabilities(None, sets).unwrap();
            // Threads inherit the capabilities of the thread that starts them.
            tokio::runtime::Runtime::new().unwrap().block_on(test);
        });
        if let Err(panic) = running.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn directories_that_cannot_be_used_are_misses_until_they_can() {
    without_privileges(async {
        for place in ["objects", "landing", "temporary", "partial", "seals"] {
            for mode in [0o000, 0o500] {
                let folder = TempDir::new().unwrap();
                let cache = folder.path().join("cache");
                let store = open(&cache).await;
                SMALL.put(&store).await.unwrap();
                let set = |mode| {
                    let directory = cache.join(place);
                    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(mode)).unwrap();
                };
                set(mode);
                let other = Sample { number: 999, ..SMALL };
                let put = other.put(&store).await;
                let found = other.check(&store).await;
                assert!(
                    put.is_ok() || found.is_none() || place == "landing",
                    "{place} {mode:o}"
                );
                SMALL.check(&store).await;
                let partial = store
                    .partial(LARGE.id(), LARGE.size_bytes, ReservePolicy::MayEvict)
                    .await;
                if matches!(place, "partial" | "seals") {
                    assert_eq!(partial.map(|_| ()), Err(NotStored::Failed), "{place} {mode:o}");
                } else {
                    assert_eq!(put, Err(NotStored::Failed), "{place} {mode:o}");
                }
                assert!(store.counters().failures > 0, "{place} {mode:o}");
                set(0o711);
                other.put(&store).await.unwrap();
                for sample in [SMALL, other] {
                    assert!(
                        sample.check(&store).await.is_some(),
                        "{place} {mode:o}: {sample:?}"
                    );
                }
                fill(&store, LARGE).await;
                assert_eq!(store.counters().corrupt, 0);
                store.stop().await;
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn each_directory_may_be_deleted_while_the_store_is_open() {
    for place in [
        "objects",
        "landing",
        "temporary",
        "partial",
        "seals",
        "unverified",
        "all of it",
    ] {
        let folder = TempDir::new().unwrap();
        let cache = folder.path().join("cache");
        let store = open(&cache).await;
        SMALL.put(&store).await.unwrap();
        fill(&store, LARGE).await;
        let begun = Sample { number: 640, ..LARGE };
        let partial = store
            .partial(begun.id(), begun.size_bytes, ReservePolicy::MayEvict)
            .await
            .unwrap();
        let block = BlockIndex(0);
        partial.write(block, vec![begun.block(block)]).await.unwrap();
        std::fs::remove_dir_all(match place {
            "all of it" => cache.clone(),
            place => cache.join(place),
        })
        .unwrap();
        // Open files can still be read, and writes meanwhile succeed or fail.
        assert!(
            partial.map(0..MIB).unwrap()[..] == begun.block(block)[..],
            "{place}"
        );
        for block in partial.missing(0..begun.size_bytes).await {
            partial.write(block, vec![begun.block(block)]).await.ok();
        }
        drop(partial);
        for sample in [SMALL, LARGE, begun] {
            sample.check(&store).await;
        }
        SMALL.put(&store).await.unwrap();
        fill(&store, LARGE).await;
        for sample in [SMALL, LARGE] {
            assert!(sample.check(&store).await.is_some(), "{place}: {sample:?}");
        }
        let usage = store.usage()[0];
        assert!(usage.used_bytes <= usage.capacity_bytes, "{place}: {usage:?}");
        store.stop().await;
    }
}
