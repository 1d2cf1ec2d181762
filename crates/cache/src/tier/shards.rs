//! The shards of a tier's directory: what is in each, and the correction of its account.

use std::io;
use std::sync::Arc;

use millpond_core::ObjectId;

use super::accounting::{SHARDS, ShardScan, SpaceAccounting};
use super::directory::{Directory, TierDir, name_in};
use super::files::TierFiles;

/// The shards of a tier.
#[derive(Debug)]
pub(crate) struct Shards {
    files: Arc<TierFiles>,
    accounting: Arc<SpaceAccounting>,
}

impl Shards {
    pub(super) fn new(files: &Arc<TierFiles>, accounting: &Arc<SpaceAccounting>) -> Arc<Self> {
        Arc::new(Self {
            files: Arc::clone(files),
            accounting: Arc::clone(accounting),
        })
    }

    /// The ids and sizes of the objects in one shard.
    pub(crate) fn objects(&self, place: TierDir, shard: usize) -> io::Result<Vec<(ObjectId, u64)>> {
        match shard_name(shard) {
            Some(name) => objects_in(&self.files.directory(), place, &name),
            None => Ok(Vec::new()),
        }
    }

    /// Corrects all accounts after files were deleted by another process.
    pub(super) fn rescan_all(&self) -> io::Result<()> {
        for shard in 0..SHARDS {
            self.rescan(shard)?;
        }
        Ok(())
    }

    /// Corrects the account of one shard, unless it is changing.
    pub(crate) fn rescan(&self, shard: usize) -> io::Result<()> {
        let directory = self.files.directory();
        let Some(name) = shard_name(shard) else {
            return Ok(());
        };
        let costs = *self.accounting.costs();
        self.accounting.rescan(shard, || {
            let mut found = ShardScan::default();
            for place in [TierDir::Objects, TierDir::Unverified] {
                for (file, _) in directory.list(place, &name)? {
                    let path = format!("{name}/{}", String::from_utf8_lossy(&file));
                    if let Some(stat) = directory.stat(place, &path) {
                        let size_bytes = u64::try_from(stat.st_size).unwrap_or(0);
                        found.add(costs.object(size_bytes), size_bytes);
                    }
                }
            }
            Ok::<_, io::Error>(found)
        })?;
        Ok(())
    }

    /// [`rescan`](Self::rescan) whose failure is counted and logged here.
    pub(crate) fn try_rescan(&self, shard: usize) {
        if let Err(error) = self.rescan(shard) {
            self.files.failed("count objects", &error);
        }
    }
}

/// The directory of a shard: the first two characters of its objects' ids.
fn shard_name(shard: usize) -> Option<String> {
    let bits = u16::try_from(shard).ok()? << 6;
    let mut bytes = [0; 16];
    bytes
        .iter_mut()
        .zip(bits.to_be_bytes())
        .for_each(|(byte, bits)| *byte = bits);
    Some(ObjectId::from_bytes(bytes).path().split('/').next()?.to_owned())
}

/// The objects in a directory.
pub(super) fn objects_in(
    directory: &Directory,
    place: TierDir,
    shard: &str,
) -> io::Result<Vec<(ObjectId, u64)>> {
    let mut found = Vec::new();
    for (name, _) in directory.list(place, shard)? {
        let Some(id) = ObjectId::from_components(shard.as_bytes(), &name) else {
            continue;
        };
        if let Some(stat) = directory.stat(place, &name_in(place, id)) {
            found.push((id, u64::try_from(stat.st_size).unwrap_or(0)));
        }
    }
    Ok(found)
}
