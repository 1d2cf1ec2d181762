//! Reading everything again, slowly: what differs from what was fetched is removed, and is a miss from then on.
//!
//! After a crash of the machine it first verifies what nobody has asked for yet. Then it goes round the tier for ever. It
//! reads the disk itself (O_DIRECT) where that is possible: a copy in the page cache proves nothing, and one that others
//! have there stays. On the way it counts each shard again, so that what was deleted behind our back is noticed.

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
use crate::tier::directory::{Place, name_in};
use crate::tier::seal::{BlockCrc, Hasher, block_bytes};
use crate::tier::{BLOCK_BYTES, BackgroundRates, Tier};

/// Between two shards, so that an empty tier is not walked without end: a round takes at least 17 minutes.
const SHARD_INTERVAL: Duration = Duration::from_secs(1);

/// Checks one tier.
#[derive(Debug)]
pub(crate) struct Scrubber {
    tier: Arc<Tier>,
    evictor: Arc<Evictor>,
    pace: BackgroundRates,
}

/// What a check of one object found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Right,
    Wrong,
    /// It is gone, or could not be read.
    Unknown,
}

impl Scrubber {
    pub(crate) const fn new(tier: Arc<Tier>, evictor: Arc<Evictor>, pace: BackgroundRates) -> Self {
        Self { tier, evictor, pace }
    }

    /// Verifies what came through a crash, then scrubs until it is told to stop.
    pub(crate) async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            self.tier.counted().await;
            self.verify_all().await;
            loop {
                self.round().await;
            }
        })
        .await;
    }

    async fn verify_all(&self) {
        if !self.tier.is_any_unverified() {
            return;
        }
        for shard in 0..SHARDS {
            for (id, size_bytes) in self.objects(Place::Unverified, shard).await {
                let tier = Arc::clone(&self.tier);
                let verify = move || {
                    if tier.ledger().costs().seal_is_file(size_bytes) {
                        // A large object becomes a partial one; it is published again when each block was right.
                        if let Some(partial) = tier.existing_partial(id, size_bytes) {
                            partial.check_all();
                        }
                    } else {
                        tier.verify(id, size_bytes);
                    }
                };
                tokio::task::spawn_blocking(verify).await.ok();
                pause(size_bytes, self.pace.verify_bytes_per_second).await;
            }
        }
        self.tier.all_verified();
    }

    /// Goes through the whole tier once.
    async fn round(&self) {
        for shard in 0..SHARDS {
            tokio::time::sleep(SHARD_INTERVAL).await;
            // Most are, where many small Datasets are: they cost no thread and no look at the disk.
            if self.tier.ledger().is_empty(shard) {
                continue;
            }
            let tier = Arc::clone(&self.tier);
            // Failures show where objects are opened.
            tokio::task::spawn_blocking(move || tier.rescan_shard(shard).ok())
                .await
                .ok();
            for (id, size_bytes) in self.objects(Place::Objects, shard).await {
                if self.check(id, size_bytes).await == Check::Wrong {
                    self.evictor.wake();
                }
                pause(size_bytes, self.pace.scrub_bytes_per_second).await;
            }
        }
        self.tier.partials().forget_deleted(&self.tier.directory());
    }

    async fn objects(&self, place: Place, shard: usize) -> Vec<(ObjectId, u64)> {
        let tier = Arc::clone(&self.tier);
        let listing =
            tokio::task::spawn_blocking(move || tier.objects_in_shard(place, shard).unwrap_or_default());
        listing.await.unwrap_or_default()
    }

    async fn check(&self, id: ObjectId, size_bytes: u64) -> Check {
        let tier = Arc::clone(&self.tier);
        let checking = tokio::task::spawn_blocking(move || check(&tier, id, size_bytes));
        checking.await.unwrap_or(Check::Unknown)
    }
}

/// Waits as long as reading so much should take.
async fn pause(bytes: u64, bytes_per_second: u64) {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(bytes_per_second.max(1));
    tokio::time::sleep(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))).await;
}

/// Reads one object as it lies on the disk, and removes it if it is not what was sealed.
fn check(tier: &Tier, id: ObjectId, size_bytes: u64) -> Check {
    let Ok(Some(file)) = tier
        .directory()
        .open(Place::Objects, &name_in(Place::Objects, id))
    else {
        return Check::Unknown;
    };
    let verdict = match tier.seal_of(&file, id, size_bytes) {
        Some(crcs) => read_and_compare(&file, size_bytes, &crcs).unwrap_or(Check::Unknown),
        // Evicted meanwhile, its seal went first; else nothing speaks for it.
        None if tier.has(id) => Check::Wrong,
        None => Check::Unknown,
    };
    drop(file);
    if verdict == Check::Wrong {
        tier.quarantine(id, size_bytes);
    }
    verdict
}

fn read_and_compare(file: &File, size_bytes: u64, crcs: &[BlockCrc]) -> io::Result<Check> {
    // Refused where the file system cannot: then through the page cache.
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
