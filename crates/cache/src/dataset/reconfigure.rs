//! Changing the options of a Dataset while it is read.
//!
//! New options are compared with the current ones, field by field: a change of a fixed field is refused before
//! anything is applied, the rest takes effect immediately. Requests in flight end as they began. Sources are listed
//! again if the tree may differ; if only credentials changed, and the last listing succeeded, they are not.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::mounts::{self, MountContext, MountError};
use super::refresh::{self, RefreshError, RefreshOutcome, RefreshSettings};
use super::{Dataset, DatasetOptions, origin_options};
use crate::fetch::OriginOptions;
use crate::store::{MemoryTier, StoreSettings};

/// Why options were refused.
#[derive(Debug, thiserror::Error)]
pub enum ReconfigureError {
    /// A field cannot change while the Dataset is open.
    #[error("{field} cannot be changed while the Dataset is open; {fix}")]
    Fixed {
        /// The field of [`DatasetOptions`].
        field: &'static str,
        /// How to change it.
        fix: &'static str,
    },
    /// A mount is invalid; nothing changed.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The options were applied, and then the sources could not be listed; the old catalog stays until they can.
    #[error("the new options are applied, but the sources could not be listed")]
    Refresh(#[from] RefreshError),
    /// The Dataset is being closed.
    #[error("the Dataset is being closed")]
    Stopped,
}

/// The current options.
#[derive(Debug)]
pub(super) struct Current {
    options: Mutex<DatasetOptions>,
}

impl Current {
    pub(super) fn new(options: DatasetOptions) -> Self {
        Self {
            options: Mutex::new(options),
        }
    }
}

impl Dataset {
    /// Applies other options. Returns the outcome of the new listing, if there was one.
    ///
    /// May change: `mounts`, `environment`, `clients`, `disk_limit`, the bytes of `memory_tier`, `eviction`,
    /// `owner`, `refresh_interval`, `changed_interval`, `hedging`, `origin` and `listing`. `fresh` and
    /// `first_generation` have no effect here.
    ///
    /// # Errors
    /// See [`ReconfigureError`]; only after [`Refresh`](ReconfigureError::Refresh) are the new options applied.
    ///
    /// # Cancel safety
    /// A dropped future may have applied some of the options: call it again.
    pub async fn reconfigure(
        &self,
        options: DatasetOptions,
    ) -> Result<Option<RefreshOutcome>, ReconfigureError> {
        self.not_stopping()
            .map_err(|_stopping| ReconfigureError::Stopped)?;
        let lists_again = self.apply_options(options).await?;
        if lists_again {
            Ok(Some(self.refresher.refresh().await?))
        } else {
            Ok(None)
        }
    }

    async fn apply_options(&self, options: DatasetOptions) -> Result<bool, ReconfigureError> {
        let mut current = self.current.options.lock().await;
        refuse_fixed(&current, &options)?;
        let before = self.sources.mounts();
        let after = {
            let context = MountContext {
                environment: options.environment.clone(),
                clients: options.clients.clone(),
                origin: origin_options(&options, &self.budget),
                metrics: self.metrics.origin.clone(),
            };
            let reads_as_before =
                current.environment == options.environment && same_origin(&current, &options);
            let known = if reads_as_before {
                before.to_vec()
            } else {
                Vec::new()
            };
            let mounts = options.mounts.clone();
            let open = tokio::task::spawn_blocking(move || mounts::open_all(&mounts, &context, &known));
            open.await.map_err(|_panicked| ReconfigureError::Stopped)??
        };
        let is_other_tree =
            refresh::identity(&before, current.owner) != refresh::identity(&after, options.owner);
        if is_other_tree && options.identity.is_none() {
            return Err(ReconfigureError::Fixed {
                field: "mounts",
                fix: "without an identity they identify the cache directory: set an identity, or close and reopen the Dataset",
            });
        }
        let is_any_mount_new = before.len() != after.len()
            || before
                .iter()
                .zip(after.iter())
                .any(|(before, after)| !Arc::ptr_eq(before, after));
        if is_any_mount_new {
            self.sources.replace(after);
        }
        let lists_again = is_other_tree || (is_any_mount_new && self.refresher.last().error.is_some());
        self.refresher
            .apply_settings(RefreshSettings::of(&options), lists_again);
        self.store
            .apply_settings(StoreSettings {
                disk_limit: options.disk_limit,
                memory_bytes: options.memory_tier.as_ref().map(|tier| tier.bytes),
                eviction: options.eviction,
            })
            .await;
        *current = options;
        Ok(lists_again)
    }
}

/// Refuses changes that need another cache directory or another process.
fn refuse_fixed(current: &DatasetOptions, options: &DatasetOptions) -> Result<(), ReconfigureError> {
    // All fields, so that a new one is considered here.
    let DatasetOptions {
        name,
        namespace,
        mounts: _,
        environment: _,
        clients: _,
        identity,
        cache_directory,
        disk_limit: _,
        disk_pool,
        memory_tier,
        eviction: _,
        boot_id,
        owner: _,
        refresh_interval: _,
        fresh: _,
        first_generation: _,
        changed_interval: _,
        small_object_bytes,
        memory_bytes,
        // One for all Datasets of a process.
        shared_memory: _,
        hedging: _,
        origin: _,
        listing: _,
    } = options;
    let path = |tier: &Option<MemoryTier>| tier.as_ref().map(|tier| tier.path.clone());
    let pools = |options: &DatasetOptions| {
        let memory = options.memory_tier.as_ref().and_then(|tier| tier.pool.as_ref());
        [options.disk_pool.as_ref(), memory].map(|pool| pool.map(Arc::as_ptr))
    };
    let fixed = [
        ("name", *name == current.name),
        ("namespace", *namespace == current.namespace),
        ("identity", *identity == current.identity),
        ("cache_directory", *cache_directory == current.cache_directory),
        ("memory_tier", path(memory_tier) == path(&current.memory_tier)),
        (
            "disk_pool",
            disk_pool.is_some() == current.disk_pool.is_some() && pools(options) == pools(current),
        ),
        ("boot_id", *boot_id == current.boot_id),
        (
            "small_object_bytes",
            *small_object_bytes == current.small_object_bytes,
        ),
        ("memory_bytes", *memory_bytes == current.memory_bytes),
    ];
    match fixed.into_iter().find(|(_, is_same)| !is_same) {
        Some((field, _)) => Err(ReconfigureError::Fixed {
            field,
            fix: "close and reopen the Dataset",
        }),
        None => Ok(()),
    }
}

/// Returns whether sources are read with the same timeouts and limits.
fn same_origin(current: &DatasetOptions, options: &DatasetOptions) -> bool {
    let OriginOptions {
        deadline,
        min_bytes_per_second,
        idle,
        concurrency,
        budget: _,
    } = &options.origin;
    current.hedging == options.hedging
        && current.origin.deadline == *deadline
        && current.origin.min_bytes_per_second == *min_bytes_per_second
        && current.origin.idle == *idle
        && current.origin.concurrency == *concurrency
}
