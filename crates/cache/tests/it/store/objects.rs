//! Objects whose size and content follow from their number, so that every process can compute them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use millpond_cache::{
    BLOCK_BYTES, BackgroundRates, BlockIndex, Eviction, Limit, NotStored, ReservePolicy, Store, StoreError,
    StoreOptions,
};
use millpond_core::NoViews;
use millpond_core::ObjectId;

/// The shards that the objects lie in, so that directories are a small part of a small disk.
const SHARDS: u64 = 32;

/// One object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sample {
    pub(crate) number: u64,
    pub(crate) size_bytes: u64,
}

impl Sample {
    /// Object of that number: most are small, some tiny (which take inodes more than bytes), some large.
    pub(crate) fn new(number: u64) -> Self {
        let size_bytes = match number % 16 {
            0..8 => 100_000 + number % 1_000,
            8..12 => 100 + number % 1_000,
            12 => 0,
            13 => 1_500_000 + number,
            // The first has its seal in an attribute, the other in a file.
            14 => 3 * BLOCK_BYTES + number,
            _ => 9 * BLOCK_BYTES + number,
        };
        Self { number, size_bytes }
    }

    /// Whether it is fetched block by block.
    pub(crate) const fn is_large(self) -> bool {
        self.size_bytes > 2 * BLOCK_BYTES
    }

    pub(crate) fn id(self) -> ObjectId {
        let mut bytes = [0; 16];
        let shard = u16::try_from(self.number % SHARDS).unwrap() << 6;
        bytes[..2].copy_from_slice(&shard.to_be_bytes());
        bytes[8..].copy_from_slice(&self.number.to_be_bytes());
        ObjectId::from_bytes(bytes)
    }

    pub(crate) fn content(self) -> Bytes {
        origin::data::bytes(self.number, 0..self.size_bytes)
    }

    pub(crate) fn blocks(self) -> u32 {
        u32::try_from(self.size_bytes.div_ceil(BLOCK_BYTES)).unwrap()
    }

    /// The bytes of one block.
    pub(crate) fn block(self, index: BlockIndex) -> Bytes {
        let start = u64::from(index.0) * BLOCK_BYTES;
        origin::data::bytes(self.number, start..self.size_bytes.min(start + BLOCK_BYTES))
    }

    pub(crate) async fn put(self, store: &Store) -> Result<(), NotStored> {
        let reservation = store
            .reserve(self.id(), self.size_bytes, ReservePolicy::MayEvict)
            .await?;
        store.put(reservation, vec![self.content()]).await
    }

    /// Opens the object and requires that it is right.
    pub(crate) async fn check(self, store: &Store) -> Option<Arc<File>> {
        let file = store.object(self.id(), self.size_bytes).await?;
        let mut found = vec![0; usize::try_from(self.size_bytes).unwrap()];
        file.read_exact_at(&mut found, 0).unwrap();
        assert!(found == self.content(), "{self:?} is not what was put");
        Some(file)
    }
}

/// Number of the objects of a writer that is killed.
pub(crate) const OBJECTS: u64 = 400;

/// Opens the store that a writer, and then the test that has killed it, opens.
pub(crate) async fn open_shared(cache: &Path, eviction: Eviction) -> Arc<Store> {
    let limit = match eviction {
        Eviction::Never => 400 << 20,
        Eviction::Lru | Eviction::TinyLfu => 60 << 20,
    };
    let limit = Limit {
        bytes: Some(limit),
        inodes: None,
    };
    open(
        options(cache, limit, eviction, "boot"),
        BackgroundRates::default(),
    )
    .await
}

/// Opens a store. Threads of an earlier store may still have the directory open: then it tries again.
pub(crate) async fn open(options: StoreOptions, rates: BackgroundRates) -> Arc<Store> {
    loop {
        match Store::open_with(options.clone(), Arc::new(NoViews), rates) {
            Err(StoreError::InUse { .. }) => tokio::task::yield_now().await,
            opened => return opened.unwrap(),
        }
    }
}

/// How to open a store of one tier.
pub(crate) fn options(cache: &Path, limit: Limit, eviction: Eviction, boot_id: &str) -> StoreOptions {
    StoreOptions {
        disk: cache.to_owned(),
        disk_limit: limit,
        disk_pool: None,
        memory: None,
        eviction,
        boot_id: boot_id.to_owned(),
        identity: "s3://bucket".to_owned(),
    }
}
