//! Tests of the store as a whole.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use millpond_core::NoViews;
use tempfile::TempDir;

use super::*;

const MIB: u64 = 1 << 20;

fn id(number: u16) -> ObjectId {
    let mut bytes = [9; 16];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

fn content(number: u16, size_bytes: u64) -> Vec<u8> {
    (0..size_bytes)
        .map(|at| u8::try_from((at * 31 + at / 4096 + u64::from(number)) % 251).unwrap())
        .collect()
}

fn options(path: &Path, bytes: u64, eviction: Eviction, boot_id: &str) -> StoreOptions {
    StoreOptions {
        disk: path.to_owned(),
        disk_limit: Limit {
            bytes: Some(bytes),
            inodes: None,
        },
        disk_pool: None,
        memory: None,
        eviction,
        boot_id: boot_id.to_owned(),
        identity: "s3://bucket".to_owned(),
    }
}

fn open(path: &Path, bytes: u64, eviction: Eviction, boot_id: &str) -> Arc<Store> {
    Store::open(options(path, bytes, eviction, boot_id), Arc::new(NoViews)).unwrap()
}

async fn put(store: &Store, number: u16, size_bytes: u64) -> Result<(), NotStored> {
    let reservation = store
        .reserve(id(number), size_bytes, ReservePolicy::MayEvict)
        .await?;
    store
        .put(reservation, vec![Bytes::from(content(number, size_bytes))])
        .await
}

async fn is_right(store: &Store, number: u16, size_bytes: u64) -> Option<bool> {
    let file = store.object(id(number), size_bytes).await?;
    let mut bytes = vec![0; usize::try_from(size_bytes).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    Some(bytes == content(number, size_bytes))
}

/// Ends a store as a kill would: without the mark of a clean stop.
async fn kill(store: Arc<Store>) {
    store.stop.cancel();
    store.tasks.close();
    store.tasks.wait().await;
    assert_eq!(Arc::strong_count(&store), 1);
}

/// Bytes and inodes that a directory takes on its file system; a file of two names counts once.
fn disk_usage(path: &Path) -> (u64, u64) {
    let mut seen = std::collections::BTreeMap::new();
    for entry in walkdir::WalkDir::new(path).into_iter().filter_map(Result::ok) {
        if let Ok(metadata) = entry.metadata() {
            seen.insert(metadata.ino(), metadata.blocks() * 512);
        }
    }
    (seen.values().sum(), seen.len() as u64)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_is_there_after_a_restart() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path(), 64 * MIB, Eviction::Never, "a");
    for number in 0..20 {
        put(&store, number, 100_000).await.unwrap();
        assert!(store.has(id(number)));
        assert!(store.directories()[0].landing.join(id(number).path()).exists());
    }
    let before = store.usage()[0];
    assert_eq!((before.objects, before.object_bytes), (20, 2_000_000));
    kill(store).await;
    let store = open(directory.path(), 64 * MIB, Eviction::Never, "a");
    store.scanned().await;
    assert_eq!(store.usage()[0].objects, 20);
    for number in 0..20 {
        assert_eq!(is_right(&store, number, 100_000).await, Some(true));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_opener_and_another_identity_are_refused() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path(), 64 * MIB, Eviction::Never, "a");
    let again = Store::open(
        options(directory.path(), MIB, Eviction::Never, "a"),
        Arc::new(NoViews),
    );
    assert!(matches!(again, Err(StoreError::InUse { .. })));
    store.stop().await;
    drop(store);
    let mut other = options(directory.path(), MIB, Eviction::Never, "a");
    other.identity = "s3://other".to_owned();
    assert!(matches!(
        Store::open(other, Arc::new(NoViews)),
        Err(StoreError::OtherIdentity { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_tier_refuses_and_never_passes_its_limit() {
    let directory = TempDir::new().unwrap();
    let limit = 8 * MIB;
    let store = open(directory.path(), limit, Eviction::Never, "a");
    let mut stored = 0;
    for number in 0..200 {
        stored += u64::from(put(&store, number * 64, 100_000).await.is_ok());
        assert!(disk_usage(directory.path()).0 <= limit);
    }
    assert!((50..80).contains(&stored), "{stored}");
    assert_eq!(store.usage()[0].objects, stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_block_publishes_a_partial_object() {
    let directory = TempDir::new().unwrap();
    for (number, size_bytes) in [(1, 3 * MIB + 17), (2, 12 * MIB + 1)] {
        let store = open(directory.path(), 64 * MIB, Eviction::Never, "a");
        let bytes = Bytes::from(content(number, size_bytes));
        let partial = store
            .partial(id(number), size_bytes, ReservePolicy::MayEvict)
            .await
            .unwrap();
        let missing = partial.missing(0..size_bytes).await;
        assert_eq!(missing.len() as u64, size_bytes.div_ceil(MIB));
        let slice = |block: BlockIndex| {
            let start = usize::try_from(u64::from(block.0) * MIB).unwrap();
            bytes.slice(start..bytes.len().min(start + usize::try_from(MIB).unwrap()))
        };
        let (last, first) = missing.split_last().unwrap();
        for block in first {
            let progress = partial.write(*block, vec![slice(*block)]).await.unwrap();
            assert!(matches!(progress, Progress::Incomplete));
        }
        assert_eq!(
            &partial.map(10..2 * MIB).unwrap()[..],
            &bytes[10..usize::try_from(2 * MIB).unwrap()]
        );
        assert!(partial.map(0..size_bytes).is_none());
        // A kill loses no block that was written.
        drop(partial);
        kill(store).await;
        let store = open(directory.path(), 64 * MIB, Eviction::Never, "a");
        let partial = store
            .partial(id(number), size_bytes, ReservePolicy::MayEvict)
            .await
            .unwrap();
        assert_eq!(partial.missing(0..size_bytes).await, vec![*last]);
        let progress = partial.write(*last, vec![slice(*last)]).await.unwrap();
        assert!(matches!(progress, Progress::Complete(_)));
        assert_eq!(is_right(&store, number, size_bytes).await, Some(true));
        drop((progress, partial));
        kill(store).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_only_verified_objects_are_served() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path(), 64 * MIB, Eviction::Never, "a");
    put(&store, 1, 100_000).await.unwrap();
    put(&store, 2, 100_000).await.unwrap();
    kill(store).await;
    let path = directory.path().join("objects").join(id(2).path());
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .write_all_at(b"x", 5000)
        .unwrap();
    let store = open(directory.path(), 64 * MIB, Eviction::Never, "b");
    assert_eq!(is_right(&store, 1, 100_000).await, Some(true));
    assert_eq!(is_right(&store, 2, 100_000).await, None);
    assert_eq!((store.counters().corrupt, store.usage()[0].objects), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_a_clean_stop_are_trusted_after_another_boot() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path(), 64 * MIB, Eviction::Never, "a");
    put(&store, 1, 100_000).await.unwrap();
    store.stop().await;
    drop(store);
    let store = open(directory.path(), 64 * MIB, Eviction::Never, "b");
    assert!(store.has(id(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_open_is_never_evicted() {
    for eviction in [Eviction::Lru, Eviction::TinyLfu] {
        let directory = TempDir::new().unwrap();
        let limit = 8 * MIB;
        let store = open(directory.path(), limit, eviction, "a");
        put(&store, 0, 100_000).await.unwrap();
        let held = store.object(id(0), 100_000).await.unwrap();
        let mut refused = 0;
        for number in 1..300 {
            refused += u64::from(put(&store, number * 64, 100_000).await.is_err());
            let (used, _) = disk_usage(directory.path());
            assert!(used <= limit, "{eviction:?}: {used}");
        }
        assert!(store.has(id(0)), "{eviction:?}");
        assert!(
            store.counters().evicted_objects > 150,
            "{eviction:?}: {:?}",
            store.counters()
        );
        assert_eq!(refused, 0, "{eviction:?}");
        drop(held);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_linked_again_for_as_long_as_the_first_time() {
    let directory = TempDir::new().unwrap();
    let rates = BackgroundRates {
        landing_ttl: std::time::Duration::from_millis(100),
        ..BackgroundRates::default()
    };
    let options = options(directory.path(), 64 * MIB, Eviction::Never, "a");
    let store = Store::open_with(options, Arc::new(NoViews), rates).unwrap();
    assert!(
        !store.link_to_landing(id(1)).await,
        "an object that is not cached cannot be linked"
    );
    put(&store, 1, 100_000).await.unwrap();
    let link = store.directories()[0].landing.join(id(1).path());
    let swept = async || {
        while link.exists() {
            tokio::task::yield_now().await;
        }
    };
    swept().await;
    let before = store.usage()[0];
    for _ in 0..3 {
        assert!(store.link_to_landing(id(1)).await);
        assert!(link.exists());
    }
    assert_eq!(
        store.usage()[0],
        before,
        "its space was reserved with the object's"
    );
    swept().await;
    assert!(!store.disk.tier.landing().has(id(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_linked_while_it_is_evicted_takes_no_space_afterwards() {
    let directory = TempDir::new().unwrap();
    let limit = 8 * MIB;
    let store = open(directory.path(), limit, Eviction::Lru, "a");
    let stop = CancellationToken::new();
    let mut linkers = tokio::task::JoinSet::new();
    for linker in 0..4_u16 {
        let (store, stop) = (Arc::clone(&store), stop.clone());
        linkers.spawn(async move {
            let mut number = linker;
            while !stop.is_cancelled() {
                store.link_to_landing(id(number % 300)).await;
                number = (number + 7) % 300;
            }
        });
    }
    for number in 0..600 {
        put(&store, number % 300, 100_000).await.unwrap();
        let (used, _) = disk_usage(directory.path());
        assert!(used <= limit, "{used}");
    }
    stop.cancel();
    linkers.join_all().await;
    assert!(store.counters().evicted_objects > 300, "{:?}", store.counters());
    // A landing link without its object would take the space of an evicted object.
    let TierDirectories { objects, landing } = &store.directories()[0];
    for link in walkdir::WalkDir::new(landing).into_iter().map(Result::unwrap) {
        if link.file_type().is_file() {
            let name = link.path().strip_prefix(landing).unwrap();
            assert!(objects.join(name).exists(), "{name:?}");
        }
    }
}

/// Begins to fetch an object again when its old copy is about to be removed.
#[derive(Default)]
struct FetchAgain {
    store: std::sync::OnceLock<Arc<Store>>,
    partial: Mutex<Option<Arc<Partial>>>,
}

const AGAIN: (u16, u64) = (7, 9 * MIB);

#[async_trait::async_trait]
impl Views for FetchAgain {
    async fn release(&self, _unlinked: &[ObjectId]) -> Result<(), millpond_core::ReleaseError> {
        let store = self.store.get().unwrap();
        let partial = store
            .partial(id(AGAIN.0), AGAIN.1, ReservePolicy::MayEvict)
            .await
            .unwrap();
        *self.partial.lock() = Some(partial);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_fetched_again_while_its_old_copy_is_evicted_keeps_its_map() {
    let directory = TempDir::new().unwrap();
    let views = Arc::new(FetchAgain::default());
    let options = options(directory.path(), 64 * MIB, Eviction::Never, "a");
    let store = Store::open(options, Arc::clone(&views) as _).unwrap();
    views.store.set(Arc::clone(&store)).ok().unwrap();
    let (number, size_bytes) = AGAIN;
    let bytes = Bytes::from(content(number, size_bytes));
    let block = |index: u32| {
        let start = usize::try_from(MIB).unwrap() * usize::try_from(index).unwrap();
        vec![bytes.slice(start..start + usize::try_from(MIB).unwrap())]
    };
    let partial = store
        .partial(id(number), size_bytes, ReservePolicy::MayEvict)
        .await
        .unwrap();
    for index in 0..9 {
        partial.write(BlockIndex(index), block(index)).await.unwrap();
    }
    drop(partial);
    let path = directory.path().join("objects").join(id(number).path());
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(size_bytes + 1).unwrap();
    drop(file);
    assert!(store.object(id(number), size_bytes).await.is_none());
    while store.counters().evicted_objects == 0 {
        tokio::task::yield_now().await;
    }
    let partial = views.partial.lock().take().unwrap();
    partial.write(BlockIndex(3), block(3)).await.unwrap();
    assert!(
        directory
            .path()
            .join("seals")
            .join(id(number).to_string())
            .exists()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_cache_directory_is_a_miss_and_recreated() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("cache");
    let store = open(&path, 64 * MIB, Eviction::Never, "a");
    put(&store, 1, 100_000).await.unwrap();
    std::fs::remove_dir_all(&path).unwrap();
    assert_eq!(is_right(&store, 1, 100_000).await, None);
    put(&store, 1, 100_000).await.unwrap();
    assert_eq!(is_right(&store, 1, 100_000).await, Some(true));
    assert_eq!(store.usage()[0].objects, 1);
}
