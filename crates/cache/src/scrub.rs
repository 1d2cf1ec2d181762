//! Scrubbing of a tier: every object is read again, slowly; one whose checksums differ is removed, and is a miss from then on.
//!
//! After a crash of the machine the scrubber first verifies the objects that no reader has opened yet. Then it scrubs the
//! tier again and again. It reads the disk itself (O_DIRECT) where that is possible: a copy in the page cache proves nothing,
//! and the page cache of readers stays as it is. It also scans each shard again, which finds the space of files that another
//! process deleted.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use memmap2::MmapMut;
use millpond_core::ObjectId;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tokio_util::sync::CancellationToken;

use crate::evict::Evictor;
use crate::tier::accounting::SHARDS;
use crate::tier::directory::{TierDir, name_in};
use crate::tier::seal::{BlockCrc, Hasher, block_bytes};
use crate::tier::{BLOCK_BYTES, BackgroundRates, Tier};

/// Interval between two shards, so that an empty tier is not scanned without end: a round takes at least 17 minutes.
const SHARD_INTERVAL: Duration = Duration::from_secs(1);

/// The scrubber of one tier.
#[derive(Debug)]
pub(crate) struct Scrubber {
    tier: Arc<Tier>,
    evictor: Arc<Evictor>,
    rates: BackgroundRates,
}

/// Result of a check of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Right,
    Wrong,
    /// It was deleted, or could not be read.
    Unknown,
}

impl Scrubber {
    pub(crate) const fn new(tier: Arc<Tier>, evictor: Arc<Evictor>, rates: BackgroundRates) -> Self {
        Self { tier, evictor, rates }
    }

    /// Verifies what survived a crash, then scrubs until it is stopped.
    pub(crate) async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            self.tier.scan().wait().await;
            self.verify_all().await;
            loop {
                self.round().await;
            }
        })
        .await;
    }

    async fn verify_all(&self) {
        if !self.tier.unverified().has_any() {
            return;
        }
        for shard in 0..SHARDS {
            for (id, size_bytes) in self.objects(TierDir::Unverified, shard).await {
                let tier = Arc::clone(&self.tier);
                let verify = move || {
                    if tier.accounting().costs().seal_is_file(size_bytes) {
                        // A large object becomes a partial one; it is published again when each block was right.
                        if let Some(partial) = tier.partials().open(id, size_bytes) {
                            partial.check_all();
                        }
                    } else {
                        tier.objects().verify(id, size_bytes);
                    }
                };
                tokio::task::spawn_blocking(verify).await.ok();
                throttle(size_bytes, self.rates.verify_bytes_per_second).await;
            }
        }
        self.tier.unverified().set_any(false);
    }

    /// Scrubs the whole tier once.
    async fn round(&self) {
        for shard in 0..SHARDS {
            tokio::time::sleep(SHARD_INTERVAL).await;
            // Most shards of a small Dataset are: they cost no thread and no call to the file system.
            if self.tier.accounting().is_empty(shard) {
                continue;
            }
            let tier = Arc::clone(&self.tier);
            // A failure is found again, and counted, where objects are opened.
            tokio::task::spawn_blocking(move || tier.shards().rescan(shard).ok())
                .await
                .ok();
            for (id, size_bytes) in self.objects(TierDir::Objects, shard).await {
                if self.check(id, size_bytes).await == Check::Wrong {
                    self.evictor.wake();
                }
                throttle(size_bytes, self.rates.scrub_bytes_per_second).await;
            }
        }
        self.tier
            .partials()
            .table()
            .drop_deleted(&self.tier.files().directory());
    }

    async fn objects(&self, place: TierDir, shard: usize) -> Vec<(ObjectId, u64)> {
        let tier = Arc::clone(&self.tier);
        let listing =
            tokio::task::spawn_blocking(move || tier.shards().objects(place, shard).unwrap_or_default());
        listing.await.unwrap_or_default()
    }

    async fn check(&self, id: ObjectId, size_bytes: u64) -> Check {
        let tier = Arc::clone(&self.tier);
        let checking = tokio::task::spawn_blocking(move || check(&tier, id, size_bytes));
        checking.await.unwrap_or(Check::Unknown)
    }
}

/// Waits as long as reading so many bytes should take.
async fn throttle(bytes: u64, bytes_per_second: u64) {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(bytes_per_second.max(1));
    tokio::time::sleep(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))).await;
}

/// Reads one object as it lies on the disk, and removes it if it is not what was sealed.
fn check(tier: &Tier, id: ObjectId, size_bytes: u64) -> Check {
    let Ok(Some(file)) = tier
        .files()
        .directory()
        .open(TierDir::Objects, &name_in(TierDir::Objects, id))
    else {
        return Check::Unknown;
    };
    let result = match tier.objects().checksums(&file, id, size_bytes) {
        Some(crcs) => read_and_compare(&file, size_bytes, &crcs).unwrap_or(Check::Unknown),
        // Evicted meanwhile, its seal was removed first; else nothing proves its bytes.
        None if tier.objects().has(id) => Check::Wrong,
        None => Check::Unknown,
    };
    drop(file);
    if result == Check::Wrong {
        tier.corrupt().quarantine(id, size_bytes);
    }
    result
}

fn read_and_compare(file: &File, size_bytes: u64, crcs: &[BlockCrc]) -> io::Result<Check> {
    // Refused where the file system does not support it: then through the page cache.
    let is_direct = fcntl_getfl(file)
        .and_then(|flags| fcntl_setfl(file, flags | OFlags::DIRECT))
        .is_ok();
    // Pages are aligned as O_DIRECT demands.
    let mut buffer = MmapMut::map_anon(usize::try_from(BLOCK_BYTES).unwrap_or(usize::MAX))?;
    for (crc, index) in crcs.iter().zip(0_u64..) {
        let length = usize::try_from(block_bytes(size_bytes, index)).unwrap_or(usize::MAX);
        let offset = index * BLOCK_BYTES;
        let read = match file.read_at(&mut buffer, offset) {
            Ok(read) => read,
            Err(_) if is_direct => {
                fcntl_setfl(file, fcntl_getfl(file)? - OFlags::DIRECT)?;
                file.read_at(&mut buffer, offset)?
            }
            Err(error) => return Err(error),
        };
        let Some(block) = buffer.get(..length).filter(|_| read >= length) else {
            return Ok(Check::Wrong);
        };
        let mut hasher = Hasher::new();
        hasher.update(block);
        if hasher.finish() != *crc {
            return Ok(Check::Wrong);
        }
    }
    Ok(Check::Right)
}
