//! Reports to the controller: the state of the tier, each Dataset and each load, whenever it changes.

use std::collections::{HashMap, HashSet};

use millpond_wire::plan;
use millpond_wire::plan::worker_report::Report;
use tokio::sync::mpsc;

use crate::service::Datasets;
use millpond_cache::dataset::DatasetStats;

/// Last states sent on the current stream.
#[derive(Default)]
pub(super) struct SentReports {
    tier: plan::TierState,
    datasets: HashMap<String, plan::DatasetState>,
    loads: HashMap<String, plan::LoadState>,
}

impl SentReports {
    /// Clears the state for a new stream, on which everything is sent again.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Sends changed states. A state that does not fit into the queue is sent the next time.
    pub(super) fn send(
        &mut self,
        reports: &mpsc::Sender<plan::WorkerReport>,
        tier: plan::TierState,
        datasets: Vec<plan::DatasetState>,
        loads: Vec<plan::LoadState>,
    ) {
        let present: HashSet<_> = datasets.iter().map(|state| &state.uid).collect();
        self.datasets.retain(|uid, _| present.contains(uid));
        let present: HashSet<_> = loads.iter().map(|state| &state.uid).collect();
        self.loads.retain(|uid, _| present.contains(uid));
        let try_send = |report| {
            reports
                .try_send(plan::WorkerReport { report: Some(report) })
                .is_ok()
        };
        if self.tier != tier && try_send(Report::Tier(tier)) {
            self.tier = tier;
        }
        for state in datasets {
            if self.datasets.get(&state.uid) != Some(&state) && try_send(Report::Dataset(state.clone())) {
                self.datasets.insert(state.uid.clone(), state);
            }
        }
        for state in loads {
            if self.loads.get(&state.uid) != Some(&state) && try_send(Report::Load(state.clone())) {
                self.loads.insert(state.uid.clone(), state);
            }
        }
    }
}

/// Returns the states of all Datasets, including those that cannot be opened.
pub(super) fn dataset_states<'a>(
    datasets: &Datasets,
    problems: impl Iterator<Item = (&'a str, Vec<plan::Problem>)>,
) -> Vec<plan::DatasetState> {
    problems
        .map(|(uid, problems)| {
            let mut state = match datasets.get(uid) {
                Some(served) => {
                    let listing = *served.dataset.listing().borrow();
                    let mut state = state_of(&served.dataset.stats());
                    state.listing_objects = listing.running.then_some(listing.objects);
                    state
                }
                None => plan::DatasetState::default(),
            };
            state.uid = uid.to_owned();
            state.problems = problems;
            state
        })
        .collect()
}

fn state_of(stats: &DatasetStats) -> plan::DatasetState {
    let mut state = plan::DatasetState::default();
    if let Some(catalog) = &stats.catalog {
        state.catalog_generation = catalog.generation;
        state.files = catalog.files;
        state.size_bytes = catalog.bytes;
        state.refused_paths = catalog.refused.values().sum();
    }
    for tier in &stats.tiers {
        state.cached_bytes += tier.object_bytes;
        state.cached_files += tier.objects;
        state.capacity_bytes = state.capacity_bytes.saturating_add(tier.capacity_bytes);
    }
    state.read_local_bytes = stats.read.local_bytes;
    state.read_peer_bytes = stats.read.peer_bytes;
    state.read_origin_bytes = stats.read.origin_bytes;
    state
}
