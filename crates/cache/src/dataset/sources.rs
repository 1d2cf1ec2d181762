//! The sources that a Dataset reads now, and those that only older generations reference.
//!
//! A reader's object belongs to a generation, and so to the source that this generation references. When a mount is
//! removed or its source changes, the old source is retired: it is read as long as a generation on disk references
//! it. New credentials of a mount are used for every request from then on, whichever generation it is for.

use std::sync::Arc;

use arc_swap::ArcSwap;
use millpond_catalog::{Object, SourceInfo};

use super::mounts::Mount;

/// An object of a generation, and the source that the generation has it from.
#[derive(Clone, Debug)]
pub(super) struct ObjectLocation {
    pub(super) object: Object,
    pub(super) source: Arc<SourceInfo>,
}

/// All sources that may be read.
#[derive(Debug)]
pub(super) struct Sources {
    table: ArcSwap<Table>,
}

#[derive(Clone, Debug)]
struct Table {
    mounts: Arc<[Arc<Mount>]>,
    retired: Vec<Arc<Mount>>,
}

impl Sources {
    pub(super) fn new(mounts: Arc<[Arc<Mount>]>) -> Self {
        let retired = Vec::new();
        Self {
            table: ArcSwap::from_pointee(Table { mounts, retired }),
        }
    }

    /// Returns the mounts of the next listing, in the order of the catalog's sources.
    pub(super) fn mounts(&self) -> Arc<[Arc<Mount>]> {
        Arc::clone(&self.table.load().mounts)
    }

    /// Replaces the mounts. Removed ones are retired, for older generations.
    pub(super) fn replace(&self, mounts: Arc<[Arc<Mount>]>) {
        self.table.rcu(|table| {
            let old = table.mounts.iter().chain(&table.retired);
            let retired = old.filter(|old| !mounts.iter().any(|mount| mount.info == old.info));
            Table {
                retired: retired.cloned().collect(),
                mounts: Arc::clone(&mounts),
            }
        });
    }

    /// Returns whether there are retired sources.
    pub(super) fn has_retired(&self) -> bool {
        !self.table.load().retired.is_empty()
    }

    /// Drops retired sources that no generation references.
    pub(super) fn drop_unreferenced(&self, referenced: &[Arc<SourceInfo>]) {
        self.table.rcu(|table| {
            let mut table = Table::clone(table);
            table
                .retired
                .retain(|mount| referenced.iter().any(|source| **source == mount.info));
            table
        });
    }

    /// Returns the mount that serves objects of this source; `None`: it was removed before this process started.
    pub(super) fn mount_of(&self, info: &SourceInfo) -> Option<Arc<Mount>> {
        let table = self.table.load();
        let all = || table.mounts.iter().chain(&table.retired);
        all()
            .find(|mount| mount.info == *info)
            // Mounted at another path now: the same keys.
            .or_else(|| all().find(|mount| mount.info.id == info.id && mount.info.prefix == info.prefix))
            .cloned()
    }
}
