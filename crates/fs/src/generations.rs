//! Which generations are in use on this node, told to the worker, which keeps their catalogs.
//!
//! Views hold the generation they show; the FUSE server may hold those that open files belong to. The worker is told
//! each change while no lock is held that a holder waits for longer than its own change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millpond_core::{Generation, Worker};
use parking_lot::Mutex;

/// Counts the holders of each generation.
#[derive(Default)]
pub struct Generations {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    holders: BTreeMap<Generation, u64>,
    /// Who is told; `None` before the worker is there and after the end.
    worker: Option<Arc<dyn Worker>>,
}

impl State {
    fn tell(&self) {
        if let Some(worker) = &self.worker {
            worker.retain_generations(&self.in_use());
        }
    }

    fn in_use(&self) -> BTreeSet<Generation> {
        self.holders.keys().copied().collect()
    }
}

impl Generations {
    /// Tells `worker` from now on, starting with what is held already; `None` ends it.
    pub fn connect(&self, worker: Option<Arc<dyn Worker>>) {
        let mut state = self.state.lock();
        state.worker = worker;
        state.tell();
    }

    /// Keeps `generation` in use until the answer is dropped.
    pub fn pin(self: &Arc<Self>, generation: Generation) -> GenerationPin {
        let mut state = self.state.lock();
        let holders = state.holders.entry(generation).or_insert(0);
        *holders = holders.saturating_add(1);
        if *holders == 1 {
            state.tell();
        }
        GenerationPin {
            generations: Arc::clone(self),
            generation,
        }
    }

    /// The generations that somebody holds.
    pub fn in_use(&self) -> BTreeSet<Generation> {
        self.state.lock().in_use()
    }

    fn release(&self, generation: Generation) {
        let mut state = self.state.lock();
        let Some(holders) = state.holders.get_mut(&generation) else {
            return;
        };
        *holders = holders.saturating_sub(1);
        if *holders == 0 {
            state.holders.remove(&generation);
            state.tell();
        }
    }
}

/// A generation in use, until it is dropped.
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
