//! The catalogs that the mount needs, kept on the disk.
//!
//! The worker deletes a generation that is neither the newest nor in use, as soon as it has been told for the first time which
//! are. So what is needed is held before that, and what comes to be shown is held before it stops being the newest.

use std::sync::Arc;
use std::time::Duration;

use crate::fuse::FuseServer;
use crate::generations::GenerationPin;
use crate::view::Registry;
use millpond_core::{CatalogFile, Worker};

/// How often it is looked which generations the FUSE server needs.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Holds what the FUSE server needs: the generation that its live tree shows, and those of open files.
pub struct NeededGenerations {
    fuse: Arc<FuseServer>,
    registry: Registry,
    /// What the last look saw, and the one before: a file that was just being opened at one is seen by the next.
    held: [Vec<GenerationPin>; 2],
}

impl NeededGenerations {
    /// Holds what is needed now.
    pub(crate) fn pin(fuse: Arc<FuseServer>, registry: Registry) -> Self {
        let mut needed = Self {
            fuse,
            registry,
            held: [Vec::new(), Vec::new()],
        };
        needed.look();
        needed
    }

    fn look(&mut self) {
        let generations = self.fuse.needed_generations();
        // The new holds first, so that none is let go of in between.
        let held = generations
            .into_iter()
            .map(|generation| self.registry.generations().pin(generation))
            .collect();
        self.held.rotate_right(1);
        self.held[0] = held;
    }

    /// Runs until the FUSE server publishes no more generations.
    pub async fn run(mut self) {
        let mut interval = tokio::time::interval(LOOK_INTERVAL);
        let mut shown = self.fuse.shown();
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                changed = shown.changed() => if changed.is_err() {
                    return;
                },
            }
            self.look();
        }
    }
}

/// The newest catalog, held; `None` where there is none yet.
pub fn pin_newest(worker: &dyn Worker, registry: &Registry) -> Option<(Arc<CatalogFile>, GenerationPin)> {
    let catalogs = worker.catalogs();
    loop {
        let newest = catalogs.borrow().clone()?;
        let held = registry.generations().pin(newest.generation);
        // If it still is the newest now that the worker knows of the hold, it was not deleted before.
        let still = catalogs.borrow().as_ref().map(|catalog| catalog.generation);
        if still == Some(newest.generation) {
            return Some((newest, held));
        }
    }
}
