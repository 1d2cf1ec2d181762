//! The generations in use on this node, reported to the worker, which retains their catalogs.
//!
//! Views pin the generation they show; the FUSE server pins those that open files belong to. Changes are reported
//! under the lock of the reference counts, so the worker receives them in their order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millpond_core::{Generation, Worker};
use parking_lot::Mutex;

/// The reference count of each generation.
#[derive(Default)]
pub struct Generations {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pins: BTreeMap<Generation, u64>,
    /// `None` before the worker is connected and after the shutdown.
    worker: Option<Arc<dyn Worker>>,
}

impl State {
    fn report(&self) {
        if let Some(worker) = &self.worker {
            worker.retain_generations(&self.in_use());
        }
    }

    fn in_use(&self) -> BTreeSet<Generation> {
        self.pins.keys().copied().collect()
    }
}

impl Generations {
    /// Reports to `worker` from now on, first what is pinned already; `None`: to none.
    pub fn connect(&self, worker: Option<Arc<dyn Worker>>) {
        let mut state = self.state.lock();
        state.worker = worker;
        state.report();
    }

    /// Pins `generation` until the result is dropped.
    pub fn pin(self: &Arc<Self>, generation: Generation) -> GenerationPin {
        let mut state = self.state.lock();
        let pins = state.pins.entry(generation).or_insert(0);
        *pins = pins.saturating_add(1);
        if *pins == 1 {
            state.report();
        }
        GenerationPin {
            generations: Arc::clone(self),
            generation,
        }
    }

    /// The pinned generations.
    pub fn in_use(&self) -> BTreeSet<Generation> {
        self.state.lock().in_use()
    }

    fn release(&self, generation: Generation) {
        let mut state = self.state.lock();
        let Some(pins) = state.pins.get_mut(&generation) else {
            return;
        };
        *pins = pins.saturating_sub(1);
        if *pins == 0 {
            state.pins.remove(&generation);
            state.report();
        }
    }
}

/// A reference to a generation, until it is dropped.
pub struct GenerationPin {
    generations: Arc<Generations>,
    generation: Generation,
}

impl GenerationPin {
    /// Its number.
    pub fn generation(&self) -> Generation {
        self.generation
    }
}

impl Drop for GenerationPin {
    fn drop(&mut self) {
        self.generations.release(self.generation);
    }
}
