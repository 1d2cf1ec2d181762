//! The statistics of a Dataset, as one serializable value.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::Dataset;
use super::refresh::reason_name;
use crate::metrics::DatasetMetrics;
use crate::store::Medium;

/// Refused names in the statistics.
const MAX_SAMPLES: usize = 100;

/// The state of one Dataset on this node. Counters start with the worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DatasetStats {
    /// Its name.
    pub name: String,
    /// The sources, as object ids name them.
    pub source: String,
    /// The newest catalog; absent until there is one.
    pub catalog: Option<CatalogStats>,
    /// Reads, by where their bytes came from.
    pub read: ReadStats,
    /// The tiers, fastest first.
    pub tiers: Vec<TierStats>,
    /// What eviction and checks did.
    pub store: StoreStats,
    /// Requests to the source.
    pub origin: OriginStats,
    /// The buffers of the read path.
    pub memory: MemoryStats,
    /// What loads did.
    pub loads: LoadStats,
}

/// The newest catalog.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CatalogStats {
    /// Its number.
    pub generation: u64,
    /// Files in it.
    pub files: u64,
    /// Directories in it.
    pub directories: u64,
    /// The files' bytes.
    pub bytes: u64,
    /// Bytes of image and index on disk, of all generations.
    pub disk_bytes: u64,
    /// Keys that are not in it, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Some of them.
    pub refused_samples: Vec<RefusedSample>,
    /// Seconds since 1970 when the last listing ended; absent if none did since the start.
    pub refreshed_at_seconds: Option<u64>,
    /// Seconds that it took.
    pub refresh_seconds: f64,
    /// Why it failed.
    pub refresh_error: Option<String>,
}

/// A key that is not in the catalog.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RefusedSample {
    /// Why.
    pub reason: String,
    /// The key.
    pub key: String,
}

/// Reads, by where their bytes came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReadStats {
    /// Bytes from this node's cache.
    pub local_bytes: u64,
    /// Bytes from other workers.
    pub peer_bytes: u64,
    /// Bytes from the source.
    pub origin_bytes: u64,
    /// Opens of cached files.
    pub local_opens: u64,
    /// Opens of files that another worker had.
    pub peer_opens: u64,
    /// Opens of files that had to be fetched.
    pub origin_opens: u64,
    /// The share of the bytes that did not come from the source; absent before the first read.
    pub byte_hit_rate: Option<f64>,
    /// The same share of the opens.
    pub open_hit_rate: Option<f64>,
    /// Files open through FUSE that were read.
    pub open_streams: u64,
}

/// One tier.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TierStats {
    /// `memory` or `disk`.
    pub medium: String,
    /// Its capacity in bytes.
    pub capacity_bytes: u64,
    /// Bytes used or reserved.
    pub used_bytes: u64,
    /// Its capacity in inodes.
    pub capacity_inodes: u64,
    /// Inodes used or reserved.
    pub used_inodes: u64,
    /// Complete objects.
    pub objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
}

/// What eviction and checks did.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct StoreStats {
    /// Objects evicted.
    pub evicted_objects: u64,
    /// Their bytes.
    pub evicted_bytes: u64,
    /// Victims spared because they were in use.
    pub spared_objects: u64,
    /// Objects and blocks found corrupt.
    pub corrupt: u64,
    /// Objects verified after a crash of the machine.
    pub verified_objects: u64,
    /// Objects that were not stored for lack of space.
    pub refused: u64,
    /// Failures of the file system.
    pub failures: u64,
}

/// Requests to the source.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct OriginStats {
    /// Requests by operation.
    pub requests: BTreeMap<String, u64>,
    /// Failures by reason.
    pub errors: BTreeMap<String, u64>,
    /// Retried requests.
    pub retries: u64,
    /// Throttled responses.
    pub throttles: u64,
    /// Second requests for slow responses.
    pub hedges: u64,
    /// Bytes of objects received.
    pub bytes: u64,
}

/// The buffers of the read path.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct MemoryStats {
    /// The budget.
    pub capacity_bytes: u64,
    /// Bytes held now.
    pub used_bytes: u64,
    /// Requests that wait for memory now.
    pub waiting: u64,
    /// Bytes of blocks kept in memory for lack of space on disk.
    pub transient_bytes: u64,
}

/// What loads did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadStats {
    /// Files that are cached because of a load.
    pub files: u64,
    /// Bytes that loads fetched.
    pub bytes: u64,
    /// Files that could not be loaded.
    pub failures: u64,
}

impl DatasetStats {
    /// Sets the gauges, and raises the counters of store events, to these values.
    pub(super) fn export(&self, metrics: &DatasetMetrics) {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        metrics.budget_capacity.set(number(self.memory.capacity_bytes));
        metrics.budget_used.set(number(self.memory.used_bytes));
        metrics.budget_waiting.set(number(self.memory.waiting));
        if let Some(catalog) = &self.catalog {
            metrics.catalog_generation.set(number(catalog.generation));
            metrics.catalog_files.set(number(catalog.files));
            metrics.catalog_bytes.set(number(catalog.bytes));
        }
        for tier in &self.tiers {
            let medium = tier.medium.as_str();
            metrics.tier_capacity.of(medium).set(number(tier.capacity_bytes));
            metrics.tier_used.of(medium).set(number(tier.used_bytes));
            metrics.tier_objects.of(medium).set(number(tier.objects));
        }
        metrics.raise_store_events([
            ("evicted", self.store.evicted_objects),
            ("spared", self.store.spared_objects),
            ("corrupt", self.store.corrupt),
            ("verified", self.store.verified_objects),
            ("refused", self.store.refused),
            ("failure", self.store.failures),
        ]);
    }
}

impl Dataset {
    /// Returns the current statistics.
    pub fn stats(&self) -> DatasetStats {
        DatasetStats {
            name: self.name.clone(),
            source: self.source_names(),
            catalog: self.catalog_stats(),
            read: self.read_stats(),
            tiers: self.tier_stats(),
            store: self.store_stats(),
            origin: self.origin_stats(),
            memory: MemoryStats {
                capacity_bytes: self.budget.capacity_bytes(),
                used_bytes: self.budget.used_bytes(),
                waiting: self.budget.waiting() as u64,
                transient_bytes: self.fetch_context.transient.used_bytes() as u64,
            },
            loads: LoadStats {
                files: self.metrics.load_files.get(),
                bytes: self.metrics.load_bytes.get(),
                failures: self.metrics.load_failures.get(),
            },
        }
    }

    fn source_names(&self) -> String {
        let mounts = self.sources.mounts();
        let names: Vec<_> = mounts.iter().map(|mount| mount.info.id.as_str()).collect();
        names.join(", ")
    }

    fn catalog_stats(&self) -> Option<CatalogStats> {
        let open = self.catalogs.newest()?;
        let summary = open.catalog.index().summary();
        let last = self.refresher.last();
        let mut refused = open.record.left_out.clone();
        for (reason, count) in &summary.refused.counts {
            *refused.entry(reason_name(reason)).or_default() += count;
        }
        let named = summary.refused.samples.iter().map(|sample| RefusedSample {
            reason: reason_name(&sample.reason),
            key: sample.key.clone(),
        });
        let left_out = open
            .record
            .left_out_samples
            .iter()
            .map(|(reason, key)| RefusedSample {
                reason: reason.clone(),
                key: key.clone(),
            });
        Some(CatalogStats {
            generation: open.file.generation.0,
            files: summary.files,
            directories: summary.dirs,
            bytes: summary.bytes,
            disk_bytes: self.catalogs.disk_usage().0,
            refused,
            refused_samples: named.chain(left_out).take(MAX_SAMPLES).collect(),
            refreshed_at_seconds: last
                .at
                .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
                .map(|since| since.as_secs()),
            refresh_seconds: last.took.as_secs_f64(),
            refresh_error: last.error.map(|error| error.describe()),
        })
    }

    fn read_stats(&self) -> ReadStats {
        let metrics = self.read_counters.metrics();
        let (local_bytes, peer_bytes, origin_bytes) = (
            metrics.local_bytes.get(),
            metrics.peer_bytes.get(),
            metrics.origin_bytes.get(),
        );
        let (local_opens, peer_opens, origin_opens) = (
            metrics.local_opens.get(),
            metrics.peer_opens.get(),
            metrics.origin_opens.get(),
        );
        ReadStats {
            local_bytes,
            peer_bytes,
            origin_bytes,
            local_opens,
            peer_opens,
            origin_opens,
            byte_hit_rate: rate(local_bytes + peer_bytes, origin_bytes),
            open_hit_rate: rate(local_opens + peer_opens, origin_opens),
            open_streams: self.fetch_context.open_files.readers() as u64,
        }
    }

    fn tier_stats(&self) -> Vec<TierStats> {
        let tiers = self.store.usage().into_iter();
        tiers
            .map(|tier| TierStats {
                medium: match tier.medium {
                    Medium::Memory => "memory".to_owned(),
                    Medium::Disk => "disk".to_owned(),
                },
                capacity_bytes: tier.capacity_bytes,
                used_bytes: tier.used_bytes,
                capacity_inodes: tier.capacity_inodes,
                used_inodes: tier.used_inodes,
                objects: tier.objects,
                object_bytes: tier.object_bytes,
            })
            .collect()
    }

    fn store_stats(&self) -> StoreStats {
        let counters = self.store.counters();
        StoreStats {
            evicted_objects: counters.evicted_objects,
            evicted_bytes: counters.evicted_bytes,
            spared_objects: counters.spared_objects,
            corrupt: counters.corrupt,
            verified_objects: counters.verified_objects,
            refused: counters.refused,
            failures: counters.failures,
        }
    }

    fn origin_stats(&self) -> OriginStats {
        let metrics = &self.metrics.origin;
        OriginStats {
            requests: metrics.requests.values(),
            errors: metrics.errors.values(),
            retries: metrics.retries.get(),
            throttles: metrics.throttles.get(),
            hedges: metrics.hedges.get(),
            bytes: metrics.bytes.get(),
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate for people: 53 bits are more than they read"
)]
fn rate(hits: u64, misses: u64) -> Option<f64> {
    let all = hits + misses;
    (all > 0).then(|| hits as f64 / all as f64)
}
