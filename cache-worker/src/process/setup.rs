//! A Dataset's plan as the options of a [`Dataset`], and its failures as problems of a report.

use std::sync::Arc;
use std::time::Duration;

use protocol::plan;

use super::tiers::Tiers;
use crate::dataset::{Dataset, DatasetOptions, OpenError, RefreshError};
use crate::service::Drivers;
use crate::source::SourceOptions;
use crate::{Eviction, Limit, MemoryTier};

/// What all Datasets of this worker have in common.
pub(super) struct Setup {
    pub(super) tiers: Tiers,
    pub(super) boot_id: String,
    pub(super) read_buffer_bytes: u64,
    pub(super) registry: prometheus::Registry,
}

impl Setup {
    /// Opens the Dataset of a plan.
    pub(super) async fn open(
        &self,
        plan: &plan::Dataset,
        drivers: Arc<Drivers>,
    ) -> Result<Arc<Dataset>, plan::Problem> {
        let options = self.options(plan)?;
        Dataset::open(options, drivers, &self.registry)
            .await
            .map_err(|error| of_opening(&error))
    }

    /// Makes an open Dataset what its plan says.
    #[expect(clippy::unused_async, reason = "what cannot be done at once waits")]
    pub(super) async fn reconfigure(
        &self,
        _dataset: &Dataset,
        _plan: &plan::Dataset,
    ) -> Result<(), plan::Problem> {
        Ok(())
    }

    /// A listing that failed.
    pub(super) fn problem(&self, error: &RefreshError) -> plan::Problem {
        plan::Problem {
            kind: plan::ProblemKind::ProblemOther.into(),
            mount: None,
            message: chain(error),
        }
    }

    fn options(&self, plan: &plan::Dataset) -> Result<DatasetOptions, plan::Problem> {
        let mount = plan.mounts.first().ok_or_else(|| plan::Problem {
            kind: plan::ProblemKind::ProblemInvalidSource.into(),
            mount: None,
            message: "mounts is empty: name at least one source".to_owned(),
        })?;
        let source = SourceOptions {
            url: mount.url.clone(),
            options: mount.options.clone(),
            endpoint: None,
            region: None,
            anonymous: false,
        };
        let directory = self.tiers.main.path.join(&plan.uid);
        let mut options = DatasetOptions::new(source, directory, self.boot_id.clone());
        options.name = plan.name.clone();
        options.namespace = plan.namespace.clone();
        options.disk_limit = Limit {
            bytes: Some(plan.quota_bytes.unwrap_or(u64::MAX).min(self.tiers.main.bytes)),
            inodes: None,
        };
        options.memory_tier = self.tiers.memory.as_ref().map(|tier| MemoryTier {
            path: tier.path.join(&plan.uid),
            bytes: tier.bytes,
        });
        options.eviction = match plan.eviction() {
            plan::Eviction::Never => Eviction::Never,
            plan::Eviction::Lru => Eviction::Lru,
            plan::Eviction::TinyLfu => Eviction::TinyLfu,
        };
        if let Some(owner) = &plan.owner {
            let mode = |mode: u32| u16::try_from(mode & 0o777).unwrap_or_default();
            options.owner = catalog::Owner {
                uid: owner.uid,
                gid: owner.gid,
                file_mode: mode(owner.file_mode),
                dir_mode: mode(owner.dir_mode),
            };
        }
        options.refresh_interval = plan.refresh_interval_seconds.map(Duration::from_secs);
        options.memory_bytes = self.read_buffer_bytes;
        Ok(options)
    }
}

fn of_opening(error: &OpenError) -> plan::Problem {
    let kind = match error {
        OpenError::Source(_) => plan::ProblemKind::ProblemInvalidSource,
        OpenError::Store(_) | OpenError::Catalogs { .. } => plan::ProblemKind::ProblemTier,
        OpenError::Metrics(_) | OpenError::Interrupted => plan::ProblemKind::ProblemOther,
    };
    plan::Problem {
        kind: kind.into(),
        mount: None,
        message: chain(error),
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        words.push_str(": ");
        words.push_str(&next.to_string());
        cause = next.source();
    }
    words
}
