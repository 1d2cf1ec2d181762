//! Options of a [`Dataset`] from its plan, and problems of a report from its errors.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use millpond_core::Generation;
use millpond_wire::plan;
use tokio::sync::Notify;
use tracing::info;

use super::tiers::Tiers;
use crate::service::Drivers;
use millpond_cache::dataset::{
    Dataset, DatasetOptions, FailureKind, MountId, MountOptions, OpenError, ReconfigureError, RefreshError,
};
use millpond_cache::fetch::SharedBudget;
use millpond_cache::metrics::WorkerMetrics;
use millpond_cache::source::{Clients, SourceOptions};
use millpond_cache::{Eviction, Limit, MemoryTier, PoolCapacity};

/// Epoch of first generations: in a new directory they start at the minutes since it. So they exceed the generations that
/// the same Dataset had in a lost directory, unless it changed more than once a minute. Drivers allow 26 bits.
const FIRST_GENERATIONS: u64 = 1_767_225_600;

/// Divisor of the quota for the memory tier: large files are cached on the disk alone.
const MEMORY_DIVISOR: u64 = 2;

/// Read buffers that each Dataset has beside the shared budget: the largest request is half of it.
const MIN_READ_BUFFER_BYTES: u64 = 16 << 20;

/// Divisors for the default read buffers of all Datasets: of the memory limit, or of the node's memory.
const LIMIT_DIVISOR: u64 = 2;
const NODE_DIVISOR: u64 = 8;

/// Returns the read buffers of all Datasets, of `bytes` or the default.
pub(super) fn read_buffers(bytes: Option<u64>) -> SharedBudget {
    let bytes = bytes.unwrap_or_else(|| match millpond_process::memory_limit_bytes() {
        Some(limit) => limit / LIMIT_DIVISOR,
        None => millpond_process::memory_bytes() / NODE_DIVISOR,
    });
    info!(bytes, "read buffers of all Datasets");
    SharedBudget::new(bytes, MIN_READ_BUFFER_BYTES)
}

/// State shared by all Datasets of this worker.
pub(super) struct WorkerContext {
    pub(super) tiers: Tiers,
    /// Capacity of the main tier, shared by all.
    pub(super) main: Arc<PoolCapacity>,
    /// Capacity of the memory tier in front of it.
    pub(super) memory: Option<Arc<PoolCapacity>>,
    pub(super) boot_id: String,
    pub(super) read_buffer_bytes: u64,
    /// Budget of all read buffers.
    pub(super) read_buffers: SharedBudget,
    pub(super) metrics: WorkerMetrics,
    /// HTTP clients, shared by sources with equal options.
    pub(super) clients: Clients,
    /// Notified when a Dataset has news that the controller waits for.
    pub(super) news: Notify,
}

impl WorkerContext {
    /// Opens the Dataset of a plan.
    pub(super) async fn open(
        &self,
        plan: &plan::Dataset,
        drivers: Arc<Drivers>,
    ) -> Result<Arc<Dataset>, plan::Problem> {
        Dataset::open(self.options(plan), drivers, &self.metrics)
            .await
            .map_err(|error| of_opening(plan, &error))
    }

    /// Applies a changed plan to an open Dataset; lists its sources again if they changed.
    pub(super) async fn reconfigure(
        &self,
        dataset: &Dataset,
        plan: &plan::Dataset,
    ) -> Result<(), plan::Problem> {
        match dataset.reconfigure(self.options(plan)).await {
            // The Dataset itself reports problems of its sources while they last.
            Ok(_) | Err(ReconfigureError::Refresh(_)) => Ok(()),
            Err(error) => {
                let (kind, mount) = match &error {
                    ReconfigureError::Mount(error) => (error.kind(), error.mount()),
                    ReconfigureError::Refresh(_)
                    | ReconfigureError::Fixed { .. }
                    | ReconfigureError::Stopped => (FailureKind::Other, None),
                };
                Err(problem(plan, kind, mount, error.describe()))
            }
        }
    }

    fn options(&self, plan: &plan::Dataset) -> DatasetOptions {
        let mounts = plan.mounts.iter().map(|mount| MountOptions {
            source: SourceOptions {
                url: mount.url.clone(),
                options: mount.options.clone(),
                ca_certificates: Some(mount.ca_pem.clone()).filter(|pem| !pem.is_empty()),
                web_identity_token: Some(mount.web_identity_token.clone()).filter(|token| !token.is_empty()),
                ..SourceOptions::default()
            },
            path: mount.path.clone(),
            name: Some(mount.name.clone()).filter(|name| !name.is_empty()),
            include: mount.include.clone(),
            exclude: mount.exclude.clone(),
        });
        let directory = self.tiers.main.path.join(&plan.uid);
        let mut options = DatasetOptions::new(mounts.collect(), directory, self.boot_id.clone());
        options.name.clone_from(&plan.name);
        options.namespace.clone_from(&plan.namespace);
        options.identity = Some(plan.uid.clone());
        options.clients = self.clients.clone();
        let quota = plan.quota_bytes.unwrap_or(u64::MAX);
        let in_memory = self
            .tiers
            .memory
            .as_ref()
            .map_or(0, |tier| tier.bytes.min(quota / MEMORY_DIVISOR));
        options.disk_limit = Limit {
            bytes: Some(quota.saturating_sub(in_memory).min(self.tiers.main.bytes)),
            inodes: None,
        };
        options.disk_pool = Some(Arc::clone(&self.main));
        options.memory_tier = self.tiers.memory.as_ref().map(|tier| MemoryTier {
            path: tier.path.join(&plan.uid),
            bytes: in_memory,
            pool: self.memory.clone(),
        });
        options.eviction = match plan.eviction() {
            plan::Eviction::Never => Eviction::Never,
            plan::Eviction::Lru => Eviction::Lru,
            plan::Eviction::TinyLfu => Eviction::TinyLfu,
        };
        if let Some(owner) = &plan.owner {
            let mode = |mode: u32| u16::try_from(mode & 0o777).unwrap_or_default();
            options.owner = millpond_catalog::Owner {
                uid: owner.uid,
                gid: owner.gid,
                file_mode: mode(owner.file_mode),
                dir_mode: mode(owner.dir_mode),
            };
        }
        options.refresh_interval = plan.refresh_interval_seconds.map(Duration::from_secs);
        options.memory_bytes = self.read_buffer_bytes;
        options.shared_memory = Some(self.read_buffers.clone());
        options.first_generation = first_generation(SystemTime::now());
        options
    }
}

fn first_generation(now: SystemTime) -> Generation {
    let seconds = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    Generation(seconds.saturating_sub(FIRST_GENERATIONS) / 60 + 1)
}

fn of_opening(plan: &plan::Dataset, error: &OpenError) -> plan::Problem {
    match error {
        OpenError::Store(_) | OpenError::Catalogs { .. } => plan::Problem {
            kind: plan::ProblemKind::ProblemTier.into(),
            mount: None,
            message: error.describe(),
        },
        OpenError::Mount(_) | OpenError::Interrupted => {
            problem(plan, error.kind(), error.mount(), error.describe())
        }
    }
}

/// Returns the problem of a failed listing.
pub(super) fn of_listing(plan: &plan::Dataset, error: &RefreshError) -> plan::Problem {
    problem(plan, error.kind(), error.mount(), error.describe())
}

fn problem(
    plan: &plan::Dataset,
    kind: FailureKind,
    mount: Option<&MountId>,
    message: String,
) -> plan::Problem {
    let kind = match kind {
        FailureKind::AccessDenied => plan::ProblemKind::ProblemAccessDenied,
        FailureKind::SourceNotFound => plan::ProblemKind::ProblemSourceNotFound,
        FailureKind::InvalidSource => plan::ProblemKind::ProblemInvalidSource,
        FailureKind::Unreachable => plan::ProblemKind::ProblemUnreachable,
        FailureKind::Other => plan::ProblemKind::ProblemOther,
    };
    plan::Problem {
        kind: kind.into(),
        mount: mount
            .and_then(|mount| plan.mounts.get(mount.index))
            .map(|mount| mount.index),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_generations_grow_with_time_and_fit() {
        let at = |seconds| first_generation(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).0;
        assert_eq!(at(FIRST_GENERATIONS), 1);
        assert_eq!(at(FIRST_GENERATIONS + 120), 3);
        assert_eq!(at(0), 1);
        assert!(at(FIRST_GENERATIONS + 100 * 366 * 86_400) < 1 << 26);
    }
}
