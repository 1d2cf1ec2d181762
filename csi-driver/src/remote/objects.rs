//! Complete objects in this node's tiers.

use std::fs::File;
use std::sync::Arc;

use millpond_core::ObjectId;
use millpond_core::TierDirectories;
use rustix::fs::{Mode, OFlags, ResolveFlags};

/// Directories of this node's tiers, fastest first.
///
/// The worker stores only complete, checked objects in `objects`, and deletes none that a process has open.
#[derive(Clone, Debug)]
pub(super) struct Objects {
    tiers: Arc<[TierDirectories]>,
}

impl Objects {
    pub(super) fn new(tiers: Vec<TierDirectories>) -> Self {
        Self { tiers: tiers.into() }
    }

    pub(super) fn directories(&self) -> Vec<TierDirectories> {
        self.tiers.to_vec()
    }

    /// Returns whether there are any tiers: whether a worker runs on this node.
    pub(super) fn has_tiers(&self) -> bool {
        !self.tiers.is_empty()
    }

    /// Opens an object. Blocks.
    pub(super) fn open(&self, id: ObjectId, size_bytes: u64) -> Option<File> {
        let path = id.path();
        self.tiers
            .iter()
            .find_map(|tier| open_in(tier, &path))
            .filter(|file| {
                file.metadata()
                    .is_ok_and(|found| found.is_file() && found.len() == size_bytes)
            })
    }

    /// As [`Self::open`], on a blocking thread.
    pub(super) async fn find(&self, id: ObjectId, size_bytes: u64) -> Option<File> {
        let objects = self.clone();
        let opened = tokio::task::spawn_blocking(move || objects.open(id, size_bytes)).await;
        opened.ok().flatten()
    }
}

/// Opens without following symbolic links or leaving directory and file system, whatever the worker stores there.
fn open_in(tier: &TierDirectories, path: &str) -> Option<File> {
    let as_directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(&tier.objects, as_directory, Mode::empty()).ok()?;
    let as_file = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let file = rustix::fs::openat2(directory, path, as_file, Mode::empty(), resolve).ok()?;
    Some(File::from(file))
}
