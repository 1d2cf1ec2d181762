//! The complete plan, and the changes that each stream has to send.
//!
//! A stream remembers what it has sent ([`WorkerSent`], [`DriverSent`]) and takes the difference. No Dataset and no load is
//! sent before every object that existed at the start has been reconciled once: a node would close what is missing in half
//! a plan. Pools are sent immediately, since a driver prepares the directories that a worker waits for; a pool is removed
//! only by a complete plan.

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
    /// Datasets whose bytes every node has to delete.
    removed: HashSet<String>,
    loads: BTreeMap<String, Arc<PlannedLoad>>,
    pools: BTreeMap<String, Arc<plan::Pool>>,
    /// The uids that have to be reconciled once before the plan is sent; `None`: the watch caches are not synced yet.
    pending: Option<HashSet<String>>,
    /// The uids that were reconciled before the watch caches were synced.
    reconciled: HashSet<String>,
}

impl State {
    fn is_complete(&self) -> bool {
        self.pending.as_ref().is_some_and(HashSet::is_empty)
    }

    /// Returns the removed Datasets that a stream has not sent yet, and adds them to what it has `removed`.
    fn removals(
        &self,
        datasets: &mut HashMap<String, Arc<PlannedDataset>>,
        removed: &mut HashSet<String>,
    ) -> Vec<String> {
        removed.retain(|uid| self.removed.contains(uid));
        let mut removals = Vec::new();
        for uid in &self.removed {
            if removed.insert(uid.clone()) {
                datasets.remove(uid);
                removals.push(uid.clone());
            }
        }
        removals
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct PlanIndex {
    state: Mutex<State>,
    version: watch::Sender<u64>,
}

/// What the stream of a worker has sent.
#[derive(Debug, Default)]
pub(crate) struct WorkerSent {
    datasets: HashMap<String, Arc<PlannedDataset>>,
    removed: HashSet<String>,
    loads: HashMap<String, Arc<PlannedLoad>>,
    synced: bool,
}

/// What the stream of a driver has sent.
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

    /// Sets the objects, by uid, that have to be reconciled before the plan is sent.
    pub(crate) fn block_until_reconciled(&self, mut uids: HashSet<String>) {
        {
            let mut state = self.state.lock();
            let reconciled = std::mem::take(&mut state.reconciled);
            uids.retain(|uid| !reconciled.contains(uid));
            state.pending = Some(uids);
        }
        self.changed();
    }

    /// Records that an object was reconciled once, successfully or not.
    pub(crate) fn mark_reconciled(&self, uid: &str) {
        let last = {
            let mut state = self.state.lock();
            match &mut state.pending {
                Some(pending) => pending.remove(uid) && pending.is_empty(),
                None => {
                    state.reconciled.insert(uid.to_owned());
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

    /// Returns the entry of a Dataset.
    pub(crate) fn dataset(&self, uid: &str) -> Option<Arc<PlannedDataset>> {
        self.state.lock().datasets.get(uid).cloned()
    }

    /// Returns whether the bytes of a Dataset are being deleted.
    pub(crate) fn removes(&self, uid: &str) -> bool {
        self.state.lock().removed.contains(uid)
    }

    /// Orders every node to delete the bytes of a Dataset.
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

    /// Drops a removed Dataset, once no node has bytes of it.
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

    /// Returns the number of Datasets in a pool.
    pub(crate) fn count_datasets(&self, pool: &str) -> usize {
        self.state
            .lock()
            .datasets
            .values()
            .filter(|dataset| dataset.pool == pool)
            .count()
    }

    /// Returns a number that grows with each change.
    pub(crate) fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn changed(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// Returns what the stream of a worker of `pool` has to send beyond `sent`, and adds it to `sent`.
    pub(crate) fn for_worker(&self, pool: &str, sent: &mut WorkerSent) -> Vec<worker_change::Change> {
        use worker_change::Change;
        let state = self.state.lock();
        let mut changes = Vec::new();
        if !state.is_complete() {
            return changes;
        }
        for (uid, dataset) in state.datasets.iter().filter(|(_, dataset)| dataset.pool == pool) {
            let known = sent.datasets.get(uid);
            if known
                .is_none_or(|known| !Arc::ptr_eq(known, dataset) && known.for_worker != dataset.for_worker)
            {
                changes.push(Change::PutDataset(dataset.for_worker.clone()));
                sent.datasets.insert(uid.clone(), Arc::clone(dataset));
                sent.removed.remove(uid);
            }
        }
        let removed = state.removals(&mut sent.datasets, &mut sent.removed);
        changes.extend(removed.into_iter().map(Change::RemoveDataset));
        for (uid, load) in state.loads.iter().filter(|(_, load)| load.pool == pool) {
            if sent.loads.get(uid).is_none_or(|known| known.load != load.load) {
                changes.push(Change::PutLoad(load.load.clone()));
                sent.loads.insert(uid.clone(), Arc::clone(load));
            }
        }
        sent.loads.retain(|uid, _| {
            let is_planned = state.loads.contains_key(uid);
            if !is_planned {
                changes.push(Change::RemoveLoad(uid.clone()));
            }
            is_planned
        });
        if !std::mem::replace(&mut sent.synced, true) {
            changes.push(Change::Synced(plan::Synced {}));
        }
        changes
    }

    /// Returns what the stream of a driver has to send beyond `sent`, and adds it to `sent`.
    pub(crate) fn for_driver(&self, sent: &mut DriverSent) -> Vec<driver_change::Change> {
        use driver_change::Change;
        let state = self.state.lock();
        let mut changes = Vec::new();
        for (name, pool) in &state.pools {
            if sent.pools.get(name).is_none_or(|known| known != pool) {
                changes.push(Change::PutPool((**pool).clone()));
                sent.pools.insert(name.clone(), Arc::clone(pool));
            }
        }
        if !state.is_complete() {
            return changes;
        }
        sent.pools.retain(|name, _| {
            let is_planned = state.pools.contains_key(name);
            if !is_planned {
                changes.push(Change::RemovePool(name.clone()));
            }
            is_planned
        });
        for (uid, dataset) in &state.datasets {
            let known = sent.datasets.get(uid);
            if known
                .is_none_or(|known| !Arc::ptr_eq(known, dataset) && known.for_driver != dataset.for_driver)
            {
                changes.push(Change::PutDataset(dataset.for_driver.clone()));
                sent.datasets.insert(uid.clone(), Arc::clone(dataset));
                sent.removed.remove(uid);
            }
        }
        let removed = state.removals(&mut sent.datasets, &mut sent.removed);
        changes.extend(removed.into_iter().map(Change::RemoveDataset));
        if !std::mem::replace(&mut sent.synced, true) {
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

    fn texts(changes: Vec<worker_change::Change>) -> Vec<String> {
        use worker_change::Change;
        let text = |change| match change {
            Change::PutDataset(dataset) => format!("put {}", dataset.uid),
            Change::RemoveDataset(uid) => format!("remove {uid}"),
            Change::PutLoad(load) => format!("load {}", load.uid),
            Change::RemoveLoad(uid) => format!("unload {uid}"),
            Change::Synced(_) => "synced".to_owned(),
        };
        changes.into_iter().map(text).collect()
    }

    #[test]
    fn half_a_plan_is_not_sent_to_workers() {
        let plan = PlanIndex::new();
        let mut sent = WorkerSent::default();
        plan.put_dataset("a", dataset("a", "gpu", None));
        assert!(texts(plan.for_worker("gpu", &mut sent)).is_empty());
        plan.block_until_reconciled(HashSet::from(["a".to_owned(), "b".to_owned()]));
        plan.mark_reconciled("a");
        assert!(texts(plan.for_worker("gpu", &mut sent)).is_empty());
        plan.mark_reconciled("b");
        assert_eq!(texts(plan.for_worker("gpu", &mut sent)), ["put a", "synced"]);
    }

    #[test]
    fn only_changes_are_sent_and_only_to_the_pool() {
        let plan = PlanIndex::new();
        plan.block_until_reconciled(HashSet::new());
        plan.put_dataset("a", dataset("a", "gpu", None));
        plan.put_dataset("b", dataset("b", "cpu", None));
        let mut sent = WorkerSent::default();
        assert_eq!(texts(plan.for_worker("gpu", &mut sent)), ["put a", "synced"]);
        assert!(texts(plan.for_worker("gpu", &mut sent)).is_empty());
        plan.put_dataset("a", dataset("a", "gpu", Some(1)));
        assert_eq!(texts(plan.for_worker("gpu", &mut sent)), ["put a"]);
        // A quota concerns workers alone.
        let mut driver = DriverSent::default();
        assert_eq!(plan.for_driver(&mut driver).len(), 3);
        plan.put_dataset("a", dataset("a", "gpu", Some(2)));
        assert!(plan.for_driver(&mut driver).is_empty());
        plan.remove_dataset("a");
        assert_eq!(texts(plan.for_worker("gpu", &mut sent)), ["remove a"]);
        assert_eq!(plan.for_driver(&mut driver).len(), 1);
    }

    #[test]
    fn a_load_is_sent_again_for_each_run_and_removed() {
        let plan = PlanIndex::new();
        plan.block_until_reconciled(HashSet::new());
        let mut sent = WorkerSent::default();
        let load = |run| plan::Load {
            uid: "l".to_owned(),
            run,
            ..plan::Load::default()
        };
        plan.put_load("gpu", load(1));
        assert_eq!(texts(plan.for_worker("gpu", &mut sent)), ["load l", "synced"]);
        plan.put_load("gpu", load(2));
        assert_eq!(texts(plan.for_worker("gpu", &mut sent)), ["load l"]);
        plan.remove_load("l");
        assert_eq!(texts(plan.for_worker("gpu", &mut sent)), ["unload l"]);
    }

    fn driver_texts(changes: Vec<driver_change::Change>) -> Vec<String> {
        use driver_change::Change;
        let text = |change| match change {
            Change::PutDataset(dataset) => format!("put {}", dataset.uid),
            Change::RemoveDataset(uid) => format!("remove {uid}"),
            Change::PutPool(pool) => format!("pool {}", pool.name),
            Change::RemovePool(name) => format!("unpool {name}"),
            Change::Synced(_) => "synced".to_owned(),
        };
        changes.into_iter().map(text).collect()
    }

    fn pool(name: &str, address: &str) -> plan::Pool {
        plan::Pool {
            name: name.to_owned(),
            members: vec![plan::Member {
                address: address.to_owned(),
                ..plan::Member::default()
            }],
            ..plan::Pool::default()
        }
    }

    #[test]
    fn pools_are_sent_immediately_and_removed_only_by_a_complete_plan() {
        let plan = PlanIndex::new();
        let mut sent = DriverSent::default();
        plan.put_pool(pool("gpu", ""));
        plan.put_dataset("a", dataset("a", "gpu", None));
        assert_eq!(driver_texts(plan.for_driver(&mut sent)), ["pool gpu"]);
        plan.put_pool(pool("gpu", "10.0.0.1:7401"));
        assert_eq!(driver_texts(plan.for_driver(&mut sent)), ["pool gpu"]);
        plan.remove_pool("gpu");
        assert!(plan.for_driver(&mut sent).is_empty());
        plan.block_until_reconciled(HashSet::new());
        assert_eq!(
            driver_texts(plan.for_driver(&mut sent)),
            ["unpool gpu", "put a", "synced"]
        );
    }

    #[test]
    fn a_removed_dataset_is_sent_as_removed_to_every_new_stream_until_it_is_forgotten() {
        let plan = PlanIndex::new();
        plan.block_until_reconciled(HashSet::new());
        plan.remove_dataset("a");
        assert!(plan.removes("a"));
        for _stream in 0..2 {
            assert_eq!(
                texts(plan.for_worker("gpu", &mut WorkerSent::default())),
                ["remove a", "synced"]
            );
            assert_eq!(
                driver_texts(plan.for_driver(&mut DriverSent::default())),
                ["remove a", "synced"]
            );
        }
        plan.forget_removed("a");
        assert_eq!(
            texts(plan.for_worker("gpu", &mut WorkerSent::default())),
            ["synced"]
        );
    }

    #[test]
    fn an_object_that_was_reconciled_before_the_caches_were_synced_is_not_awaited() {
        let plan = PlanIndex::new();
        plan.mark_reconciled("a");
        plan.block_until_reconciled(HashSet::from(["a".to_owned()]));
        assert_eq!(
            texts(plan.for_worker("gpu", &mut WorkerSent::default())),
            ["synced"]
        );
    }

    #[test]
    fn an_equal_entry_is_no_change() {
        let plan = PlanIndex::new();
        let version = plan.version();
        plan.put_dataset("a", dataset("a", "gpu", None));
        let first = *version.borrow();
        plan.put_dataset("a", dataset("a", "gpu", None));
        assert_eq!(*version.borrow(), first);
        assert_eq!(plan.count_datasets("gpu"), 1);
        plan.put_dataset("a", dataset("a", "gpu", Some(1)));
        assert!(*version.borrow() > first);
    }
}
