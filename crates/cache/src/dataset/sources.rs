//! The sources that a Dataset reads from now, and those that only older generations still name.
//!
//! A reader's object belongs to a generation, and so to the source that this one names. When a mount is removed or leads
//! elsewhere its source is retired: it is asked on for as long as a generation that names it is here. When a mount
//! has new credentials the new ones are taken for every request from then on, whichever generation it is for.

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

/// All sources that may be asked.
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

    /// The mounts of the next listing, in the order of the catalog's sources.
    pub(super) fn mounts(&self) -> Arc<[Arc<Mount>]> {
        Arc::clone(&self.table.load().mounts)
    }

    /// Takes other mounts. Those that are no longer among them are kept for older generations.
    pub(super) fn replace(&self, mounts: Arc<[Arc<Mount>]>) {
        self.table.rcu(|table| {
            let left = table.mounts.iter().chain(&table.retired);
            let retired = left.filter(|old| !mounts.iter().any(|mount| mount.info == old.info));
            Table {
                retired: retired.cloned().collect(),
                mounts: Arc::clone(&mounts),
            }
        });
    }

    /// Whether there are retired ones.
    pub(super) fn is_any_retired(&self) -> bool {
        !self.table.load().retired.is_empty()
    }

    /// Forgets retired sources that no generation names any more.
    pub(super) fn drop_unreferenced(&self, named: &[Arc<SourceInfo>]) {
        self.table.rcu(|table| {
            let mut table = Table::clone(table);
            table
                .retired
                .retain(|mount| named.iter().any(|named| **named == mount.info));
            table
        });
    }

    /// The mount to ask for an object of this source; `None`: it was removed before this process started.
    pub(super) fn of(&self, info: &SourceInfo) -> Option<Arc<Mount>> {
        let table = self.table.load();
        let all = || table.mounts.iter().chain(&table.retired);
        all()
            .find(|mount| mount.info == *info)
            // At another path now: the same keys.
            .or_else(|| all().find(|mount| mount.info.id == info.id && mount.info.prefix == info.prefix))
            .cloned()
    }
}
