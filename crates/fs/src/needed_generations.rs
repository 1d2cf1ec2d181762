//! Pins of the catalogs that the FUSE mount needs.
//!
//! From the first report on, the worker deletes generations that are neither the newest nor pinned. So what is needed is
//! pinned before that report, and a generation that will be shown before it stops being the newest.

use std::sync::Arc;
use std::time::Duration;

use crate::fuse::FuseServer;
use crate::generations::GenerationPin;
use crate::view::Registry;
use millpond_core::{CatalogFile, Worker};

/// Between two refreshes of the pins.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// The pins of what the FUSE server needs: the generation that its live tree shows, and those of open files.
pub struct NeededGenerations {
    fuse: Arc<FuseServer>,
    registry: Registry,
    /// Of the last two refreshes: a file that was being opened during one is seen by the next.
    pins: [Vec<GenerationPin>; 2],
}

impl NeededGenerations {
    /// Pins what is needed now.
    pub(crate) fn pin(fuse: Arc<FuseServer>, registry: Registry) -> Self {
        let mut needed = Self {
            fuse,
            registry,
            pins: [Vec::new(), Vec::new()],
        };
        needed.refresh();
        needed
    }

    fn refresh(&mut self) {
        let generations = self.fuse.needed_generations();
        // The new pins first, so that no generation is released in between.
        let pins = generations
            .into_iter()
            .map(|generation| self.registry.generations().pin(generation))
            .collect();
        self.pins.rotate_right(1);
        self.pins[0] = pins;
    }

    /// Runs until the FUSE server publishes no more generations.
    pub async fn run(mut self) {
        let mut interval = tokio::time::interval(REFRESH_INTERVAL);
        let mut live = self.fuse.live_generation();
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                changed = live.changed() => if changed.is_err() {
                    return;
                },
            }
            self.refresh();
        }
    }
}

/// Returns the newest catalog, pinned; `None` where there is none yet.
pub fn pin_newest(worker: &dyn Worker, registry: &Registry) -> Option<(Arc<CatalogFile>, GenerationPin)> {
    let catalogs = worker.catalogs();
    loop {
        let newest = catalogs.borrow().clone()?;
        let pin = registry.generations().pin(newest.generation);
        // If it is still the newest after the worker has received the pin, it was not deleted before.
        let still = catalogs.borrow().as_ref().map(|catalog| catalog.generation);
        if still == Some(newest.generation) {
            return Some((newest, pin));
        }
    }
}
