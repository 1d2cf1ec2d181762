//! What the controller is told: the tier's, each Dataset's and each load's state, whenever it is another one.

use std::collections::{HashMap, HashSet};

use millpond_wire::plan;
use millpond_wire::plan::worker_report::Report;
use tokio::sync::mpsc;

use crate::service::Datasets;
use millpond_cache::dataset::DatasetStats;

/// What the current stream has been told.
#[derive(Default)]
pub(super) struct SentReports {
    tier: plan::TierState,
    datasets: HashMap<String, plan::DatasetState>,
    loads: HashMap<String, plan::LoadState>,
}

impl SentReports {
    /// Forgets: a new stream knows nothing.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Tells what is another than before. A controller that does not take it is told the next time.
    pub(super) fn tell(
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
        let send = |report| {
            reports
                .try_send(plan::WorkerReport { report: Some(report) })
                .is_ok()
        };
        if self.tier != tier && send(Report::Tier(tier)) {
            self.tier = tier;
        }
        for state in datasets {
            if self.datasets.get(&state.uid) != Some(&state) && send(Report::Dataset(state.clone())) {
                self.datasets.insert(state.uid.clone(), state);
            }
        }
        for state in loads {
            if self.loads.get(&state.uid) != Some(&state) && send(Report::Load(state.clone())) {
                self.loads.insert(state.uid.clone(), state);
            }
        }
    }
}

/// The states of all Datasets: of those that serve, and of those that cannot be opened.
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
