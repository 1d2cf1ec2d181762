//! The plan as a whole, and what of it each kind of process is told.
//!
//! A reader remembers what it has told ([`WorkerSent`], [`DriverSent`]) and asks for the difference. Nobody is told
//! anything before every object that was there at the start has been reconciled once: half a plan would make nodes let
//! go of the other half.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use millpond_wire::plan;
use millpond_wire::plan::{driver_change, worker_change};
use parking_lot::Mutex;
use tokio::sync::watch;

/// A Dataset in the plan.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PlannedDataset {
    pub(crate) pool: String,
    pub(crate) for_worker: plan::Dataset,
    pub(crate) for_driver: plan::DriverDataset,
}

/// A load in the plan: for the workers of a pool.
#[derive(Clone, Debug, PartialEq)]
struct PlannedLoad {
    pool: String,
    load: plan::Load,
}

#[derive(Debug, Default)]
struct State {
    datasets: BTreeMap<String, Arc<PlannedDataset>>,
    /// Datasets whose bytes are to be deleted wherever they are.
    removed: HashSet<String>,
    loads: BTreeMap<String, Arc<PlannedLoad>>,
    pools: BTreeMap<String, Arc<plan::Pool>>,
    /// What has to be reconciled once before anybody is told; `None`: it is not known yet what there is.
    awaited: Option<HashSet<String>>,
    /// What was reconciled before that was known.
    seen: HashSet<String>,
}

impl State {
    fn is_whole(&self) -> bool {
        self.awaited.as_ref().is_some_and(HashSet::is_empty)
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct PlanIndex {
    state: Mutex<State>,
    version: watch::Sender<u64>,
}

/// What a worker's stream has told.
#[derive(Debug, Default)]
pub(crate) struct WorkerSent {
    datasets: HashMap<String, Arc<PlannedDataset>>,
    removed: HashSet<String>,
    loads: HashMap<String, Arc<PlannedLoad>>,
    synced: bool,
}

/// What a driver's stream has told.
#[derive(Debug, Default)]
pub(crate) struct DriverSent {
    datasets: HashMap<String, Arc<PlannedDataset>>,
    removed: HashSet<String>,
    pools: HashMap<String, Arc<plan::Pool>>,
    synced: bool,
}

impl PlanIndex {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            version: watch::Sender::new(0),
        })
    }

    /// Names the objects, by uid, that have to be written before anybody is told.
    pub(crate) fn block_until_reconciled(&self, mut uids: HashSet<String>) {
        {
            let mut state = self.state.lock();
            let seen = std::mem::take(&mut state.seen);
            uids.retain(|uid| !seen.contains(uid));
            state.awaited = Some(uids);
        }
        self.changed();
    }

    /// An object has been looked at, whatever came of it.
    pub(crate) fn mark_reconciled(&self, uid: &str) {
        let last = {
            let mut state = self.state.lock();
            match &mut state.awaited {
                Some(awaited) => awaited.remove(uid) && awaited.is_empty(),
                None => {
                    state.seen.insert(uid.to_owned());
                    false
                }
            }
        };
        if last {
            self.changed();
        }
    }

    pub(crate) fn put_dataset(&self, uid: &str, dataset: PlannedDataset) {
        let changed = {
            let mut state = self.state.lock();
            state.removed.remove(uid);
            let known = state.datasets.get(uid).is_some_and(|known| **known == dataset);
            if !known {
                state.datasets.insert(uid.to_owned(), Arc::new(dataset));
            }
            !known
        };
        if changed {
            self.changed();
        }
    }

    /// What is planned of a Dataset.
    pub(crate) fn dataset(&self, uid: &str) -> Option<Arc<PlannedDataset>> {
        self.state.lock().datasets.get(uid).cloned()
    }

    /// Whether a Dataset's bytes are being deleted.
    pub(crate) fn removes(&self, uid: &str) -> bool {
        self.state.lock().removed.contains(uid)
    }

    /// Has a Dataset's bytes deleted on every node.
    pub(crate) fn remove_dataset(&self, uid: &str) {
        let changed = {
            let mut state = self.state.lock();
            state.datasets.remove(uid);
            state.removed.insert(uid.to_owned())
        };
        if changed {
            self.changed();
        }
    }

    /// Forgets a Dataset whose bytes are on no node any more.
    pub(crate) fn forget_removed(&self, uid: &str) {
        self.state.lock().removed.remove(uid);
    }

    pub(crate) fn put_load(&self, pool: &str, load: plan::Load) {
        let changed = {
            let mut state = self.state.lock();
            let planned = PlannedLoad {
                pool: pool.to_owned(),
                load,
            };
            let uid = planned.load.uid.clone();
            let known = state.loads.get(&uid).is_some_and(|known| **known == planned);
            if !known {
                state.loads.insert(uid, Arc::new(planned));
            }
            !known
        };
        if changed {
            self.changed();
        }
    }

    pub(crate) fn remove_load(&self, uid: &str) {
        if self.state.lock().loads.remove(uid).is_some() {
            self.changed();
        }
    }

    pub(crate) fn put_pool(&self, pool: plan::Pool) {
        let changed = {
            let mut state = self.state.lock();
            let known = state.pools.get(&pool.name).is_some_and(|known| **known == pool);
            if !known {
                state.pools.insert(pool.name.clone(), Arc::new(pool));
            }
            !known
        };
        if changed {
            self.changed();
        }
    }

    pub(crate) fn remove_pool(&self, name: &str) {
        if self.state.lock().pools.remove(name).is_some() {
            self.changed();
        }
    }

    /// Names of the Datasets of a pool.
    pub(crate) fn datasets_of(&self, pool: &str) -> usize {
        self.state
            .lock()
            .datasets
            .values()
            .filter(|dataset| dataset.pool == pool)
            .count()
    }

    /// A number that grows with each change.
    pub(crate) fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn changed(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// What a worker of `pool` has to be told beyond `told`.
    pub(crate) fn for_worker(&self, pool: &str, told: &mut WorkerSent) -> Vec<worker_change::Change> {
        use worker_change::Change;
        let state = self.state.lock();
        let mut changes = Vec::new();
        if !state.is_whole() {
            return changes;
        }
        for (uid, dataset) in state.datasets.iter().filter(|(_, dataset)| dataset.pool == pool) {
            let known = told.datasets.get(uid);
            if known
                .is_none_or(|known| !Arc::ptr_eq(known, dataset) && known.for_worker != dataset.for_worker)
            {
                changes.push(Change::PutDataset(dataset.for_worker.clone()));
                told.datasets.insert(uid.clone(), Arc::clone(dataset));
                told.removed.remove(uid);
            }
        }
        told.removed.retain(|uid| state.removed.contains(uid));
        for uid in &state.removed {
            if told.removed.insert(uid.clone()) {
                told.datasets.remove(uid);
                changes.push(Change::RemoveDataset(uid.clone()));
            }
        }
        for (uid, load) in state.loads.iter().filter(|(_, load)| load.pool == pool) {
            if told.loads.get(uid).is_none_or(|known| known.load != load.load) {
                changes.push(Change::PutLoad(load.load.clone()));
                told.loads.insert(uid.clone(), Arc::clone(load));
            }
        }
        told.loads.retain(|uid, _| {
            let stays = state.loads.contains_key(uid);
            if !stays {
                changes.push(Change::RemoveLoad(uid.clone()));
            }
            stays
        });
        if !std::mem::replace(&mut told.synced, true) {
            changes.push(Change::Synced(plan::Synced {}));
        }
        changes
    }

    /// What a driver has to be told beyond `told`.
    pub(crate) fn for_driver(&self, told: &mut DriverSent) -> Vec<driver_change::Change> {
        use driver_change::Change;
        let state = self.state.lock();
        let mut changes = Vec::new();
        // Pools are told at once: a driver prepares the directories that a worker waits for.
        for (name, pool) in &state.pools {
            if told.pools.get(name).is_none_or(|known| known != pool) {
                changes.push(Change::PutPool((**pool).clone()));
                told.pools.insert(name.clone(), Arc::clone(pool));
            }
        }
        if !state.is_whole() {
            return changes;
        }
        told.pools.retain(|name, _| {
            let stays = state.pools.contains_key(name);
            if !stays {
                changes.push(Change::RemovePool(name.clone()));
            }
            stays
        });
        for (uid, dataset) in &state.datasets {
            let known = told.datasets.get(uid);
            if known
                .is_none_or(|known| !Arc::ptr_eq(known, dataset) && known.for_driver != dataset.for_driver)
            {
                changes.push(Change::PutDataset(dataset.for_driver.clone()));
                told.datasets.insert(uid.clone(), Arc::clone(dataset));
                told.removed.remove(uid);
            }
        }
        told.removed.retain(|uid| state.removed.contains(uid));
        for uid in &state.removed {
            if told.removed.insert(uid.clone()) {
                told.datasets.remove(uid);
                changes.push(Change::RemoveDataset(uid.clone()));
            }
        }
        if !std::mem::replace(&mut told.synced, true) {
            changes.push(Change::Synced(plan::Synced {}));
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dataset(uid: &str, pool: &str, quota: Option<u64>) -> PlannedDataset {
        PlannedDataset {
            pool: pool.to_owned(),
            for_worker: plan::Dataset {
                uid: uid.to_owned(),
                quota_bytes: quota,
                ..plan::Dataset::default()
            },
            for_driver: plan::DriverDataset {
                uid: uid.to_owned(),
                ..plan::DriverDataset::default()
            },
        }
    }

    fn words(changes: Vec<worker_change::Change>) -> Vec<String> {
        use worker_change::Change;
        let word = |change| match change {
            Change::PutDataset(dataset) => format!("put {}", dataset.uid),
            Change::RemoveDataset(uid) => format!("remove {uid}"),
            Change::PutLoad(load) => format!("load {}", load.uid),
            Change::RemoveLoad(uid) => format!("unload {uid}"),
            Change::Synced(_) => "synced".to_owned(),
        };
        changes.into_iter().map(word).collect()
    }

    #[test]
    fn nobody_is_told_half_a_plan() {
        let book = PlanIndex::new();
        let mut told = WorkerSent::default();
        book.put_dataset("a", dataset("a", "gpu", None));
        assert!(words(book.for_worker("gpu", &mut told)).is_empty());
        book.block_until_reconciled(HashSet::from(["a".to_owned(), "b".to_owned()]));
        book.mark_reconciled("a");
        assert!(words(book.for_worker("gpu", &mut told)).is_empty());
        book.mark_reconciled("b");
        assert_eq!(words(book.for_worker("gpu", &mut told)), ["put a", "synced"]);
    }

    #[test]
    fn only_differences_are_told_and_only_to_the_pool() {
        let book = PlanIndex::new();
        book.block_until_reconciled(HashSet::new());
        book.put_dataset("a", dataset("a", "gpu", None));
        book.put_dataset("b", dataset("b", "cpu", None));
        let mut told = WorkerSent::default();
        assert_eq!(words(book.for_worker("gpu", &mut told)), ["put a", "synced"]);
        assert!(words(book.for_worker("gpu", &mut told)).is_empty());
        book.put_dataset("a", dataset("a", "gpu", Some(1)));
        assert_eq!(words(book.for_worker("gpu", &mut told)), ["put a"]);
        // A driver is told nothing of a worker's quota.
        let mut driver = DriverSent::default();
        assert_eq!(book.for_driver(&mut driver).len(), 3);
        book.put_dataset("a", dataset("a", "gpu", Some(2)));
        assert!(book.for_driver(&mut driver).is_empty());
        book.remove_dataset("a");
        assert_eq!(words(book.for_worker("gpu", &mut told)), ["remove a"]);
        assert_eq!(book.for_driver(&mut driver).len(), 1);
    }

    #[test]
    fn loads_come_and_go() {
        let book = PlanIndex::new();
        book.block_until_reconciled(HashSet::new());
        let mut told = WorkerSent::default();
        let load = |run| plan::Load {
            uid: "l".to_owned(),
            run,
            ..plan::Load::default()
        };
        book.put_load("gpu", load(1));
        assert_eq!(words(book.for_worker("gpu", &mut told)), ["load l", "synced"]);
        book.put_load("gpu", load(2));
        assert_eq!(words(book.for_worker("gpu", &mut told)), ["load l"]);
        book.remove_load("l");
        assert_eq!(words(book.for_worker("gpu", &mut told)), ["unload l"]);
    }
}
