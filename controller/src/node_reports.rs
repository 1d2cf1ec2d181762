//! What the node processes report, in memory.
//!
//! A process's reports are here as long as its stream lives. Views of a driver outlive it: its pods read on while another
//! driver comes, which then says its views anew. Whoever waits for news subscribes to the uids that were touched.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use millpond_wire::plan;
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::time::Instant;

/// Uids that a subscriber has not taken yet; one that is slower looks at everything.
const QUEUED: usize = 4_096;

#[derive(Debug, Default)]
struct Worker {
    /// The stream's number: a stream that was replaced must not take its successor away.
    stream: u64,
    present: BTreeSet<String>,
    /// What of its disk tier's capacity it cannot use.
    withheld_bytes: u64,
    datasets: HashMap<String, plan::DatasetState>,
    loads: HashMap<String, plan::LoadState>,
}

#[derive(Debug, Default)]
struct Driver {
    stream: Option<u64>,
    present: BTreeSet<String>,
    views: Vec<plan::View>,
    /// Views that the current stream has said, until it has said all.
    said: Option<Vec<plan::View>>,
}

#[derive(Debug, Default)]
struct State {
    streams: u64,
    /// By node and pool: a node may be in several pools.
    workers: BTreeMap<(String, String), Worker>,
    /// By node.
    drivers: BTreeMap<String, Driver>,
}

impl State {
    fn of_pool<'a>(&'a self, pool: &'a str) -> impl Iterator<Item = &'a Worker> {
        let of_pool = self.workers.iter().filter(move |((_, name), _)| name == pool);
        of_pool.map(|(_, worker)| worker)
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct NodeReports {
    state: Mutex<State>,
    touched: broadcast::Sender<String>,
    pools: broadcast::Sender<String>,
    conditions: broadcast::Sender<plan::View>,
    /// Since when reports are taken: before some time has passed, what is missing means nothing.
    since: Instant,
}

impl NodeReports {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            touched: broadcast::Sender::new(QUEUED),
            pools: broadcast::Sender::new(QUEUED),
            conditions: broadcast::Sender::new(QUEUED),
            since: Instant::now(),
        })
    }

    /// The uids of Datasets and loads that something was reported of.
    pub(crate) fn touched(&self) -> broadcast::Receiver<String> {
        self.touched.subscribe()
    }

    /// The names of pools whose workers said something of their tiers.
    pub(crate) fn touched_pools(&self) -> broadcast::Receiver<String> {
        self.pools.subscribe()
    }

    /// Views that have come to be abnormal, or normal again.
    pub(crate) fn conditions(&self) -> broadcast::Receiver<plan::View> {
        self.conditions.subscribe()
    }

    /// Whether every process that lives has had time to report.
    pub(crate) fn startup_grace_over(&self, patience: std::time::Duration) -> bool {
        self.since.elapsed() >= patience
    }

    pub(crate) fn worker_begins(&self, node: &str, pool: &str) -> u64 {
        let mut state = self.state.lock();
        state.streams += 1;
        let stream = state.streams;
        let worker = Worker {
            stream,
            ..Worker::default()
        };
        state.workers.insert((node.to_owned(), pool.to_owned()), worker);
        stream
    }

    pub(crate) fn worker_ends(&self, node: &str, pool: &str, stream: u64) {
        let key = (node.to_owned(), pool.to_owned());
        let gone = {
            let mut state = self.state.lock();
            match state.workers.get(&key) {
                Some(worker) if worker.stream == stream => state.workers.remove(&key),
                _ => None,
            }
        };
        if let Some(worker) = gone {
            worker.datasets.keys().for_each(|uid| self.touch(uid));
        }
    }

    pub(crate) fn apply_worker_report(&self, node: &str, pool: &str, report: plan::worker_report::Report) {
        use plan::worker_report::Report;
        let mut touched = Vec::new();
        let key = (node.to_owned(), pool.to_owned());
        if let Some(worker) = self.state.lock().workers.get_mut(&key) {
            match report {
                Report::Dataset(dataset) => {
                    touched.push(dataset.uid.clone());
                    worker.datasets.insert(dataset.uid.clone(), dataset);
                }
                Report::Load(load) => {
                    touched.push(load.uid.clone());
                    worker.loads.insert(load.uid.clone(), load);
                }
                Report::Tier(tier) => {
                    worker.withheld_bytes = tier.withheld_bytes;
                    // Nobody listens before the reconcilers run.
                    let _nobody = self.pools.send(pool.to_owned());
                }
                Report::Present(plan::Present { dataset_uids }) => {
                    let present = dataset_uids.into_iter().collect();
                    touched.extend(worker.present.symmetric_difference(&present).cloned());
                    worker.present = present;
                    worker.datasets.retain(|uid, _| worker.present.contains(uid));
                }
            }
        }
        touched.iter().for_each(|uid| self.touch(uid));
    }

    pub(crate) fn driver_begins(&self, node: &str) -> u64 {
        let mut state = self.state.lock();
        state.streams += 1;
        let stream = state.streams;
        let driver = state.drivers.entry(node.to_owned()).or_default();
        driver.stream = Some(stream);
        driver.said = Some(Vec::new());
        stream
    }

    pub(crate) fn driver_ends(&self, node: &str, stream: u64) {
        if let Some(driver) = self.state.lock().drivers.get_mut(node)
            && driver.stream == Some(stream)
        {
            driver.stream = None;
            driver.said = None;
        }
    }

    pub(crate) fn apply_driver_report(&self, node: &str, report: plan::driver_report::Report) {
        use plan::driver_report::Report;
        let mut touched = Vec::new();
        if let Some(driver) = self.state.lock().drivers.get_mut(node) {
            match report {
                Report::PutView(mut view) => {
                    touched.push(view.dataset_uid.clone());
                    let known = driver.said.iter().flatten().chain(&driver.views);
                    let known = known.into_iter().find(|known| known.key == view.key);
                    let before = known.and_then(|known| known.abnormal.clone());
                    match &view.abnormal {
                        None => view.abnormal = before,
                        Some(now) if *now != before.unwrap_or_default() => {
                            // Nobody listens before the reconcilers run.
                            let _nobody = self.conditions.send(view.clone());
                        }
                        Some(_as_before) => {}
                    }
                    let views = driver.said.as_mut().unwrap_or(&mut driver.views);
                    views.retain(|known| known.key != view.key);
                    views.push(view);
                }
                Report::RemoveView(key) => {
                    let gone = driver
                        .views
                        .extract_if(.., |view| view.key.as_ref() == Some(&key));
                    touched.extend(gone.map(|view| view.dataset_uid));
                    if let Some(said) = &mut driver.said {
                        said.retain(|view| view.key.as_ref() != Some(&key));
                    }
                }
                Report::Synced(plan::Synced {}) => {
                    if let Some(said) = driver.said.take() {
                        touched.extend(driver.views.iter().map(|view| view.dataset_uid.clone()));
                        driver.views = said;
                    }
                }
                Report::Present(plan::Present { dataset_uids }) => {
                    let present = dataset_uids.into_iter().collect();
                    touched.extend(driver.present.symmetric_difference(&present).cloned());
                    driver.present = present;
                }
            }
        }
        touched.iter().for_each(|uid| self.touch(uid));
    }

    /// What each worker says of a Dataset, by node.
    pub(crate) fn dataset(&self, uid: &str) -> Vec<(String, plan::DatasetState)> {
        let state = self.state.lock();
        let of = |((node, _), worker): (&(String, String), &Worker)| {
            Some((node.clone(), worker.datasets.get(uid)?.clone()))
        };
        state.workers.iter().filter_map(of).collect()
    }

    /// What each worker of a pool says of a load; `None` for one that has not said anything of it.
    pub(crate) fn load(&self, uid: &str, pool: &str) -> Vec<Option<plan::LoadState>> {
        let state = self.state.lock();
        state
            .of_pool(pool)
            .map(|worker| worker.loads.get(uid).cloned())
            .collect()
    }

    /// How many workers of a pool are connected.
    pub(crate) fn workers(&self, pool: &str) -> usize {
        self.state.lock().of_pool(pool).count()
    }

    /// Bytes that a pool's workers hold.
    pub(crate) fn used_bytes(&self, pool: &str) -> u64 {
        let state = self.state.lock();
        state
            .of_pool(pool)
            .flat_map(|worker| worker.datasets.values())
            .map(|dataset| dataset.cached_bytes)
            .sum()
    }

    /// The nodes of a pool whose disks are short, with what their workers cannot use of the capacity.
    pub(crate) fn withheld(&self, pool: &str) -> BTreeMap<String, u64> {
        let state = self.state.lock();
        let of_pool = state.workers.iter().filter(|((_, name), _)| name == pool);
        of_pool
            .filter(|(_, worker)| worker.withheld_bytes > 0)
            .map(|((node, _), worker)| (node.clone(), worker.withheld_bytes))
            .collect()
    }

    /// The pods that have a Dataset mounted, as namespace/name.
    pub(crate) fn pods(&self, uid: &str) -> BTreeSet<String> {
        let state = self.state.lock();
        let views = state
            .drivers
            .values()
            .flat_map(|driver| driver.views.iter().chain(driver.said.iter().flatten()));
        views
            .filter(|view| view.dataset_uid == uid)
            .map(|view| format!("{}/{}", view.pod_namespace, view.pod_name))
            .collect()
    }

    /// The nodes that have something of a Dataset.
    pub(crate) fn present(&self, uid: &str) -> BTreeSet<String> {
        let state = self.state.lock();
        let workers = state
            .workers
            .iter()
            .filter(|(_, worker)| worker.present.contains(uid));
        let drivers = state
            .drivers
            .iter()
            .filter(|(_, driver)| driver.stream.is_some() && driver.present.contains(uid));
        workers
            .map(|((node, _), _)| node.clone())
            .chain(drivers.map(|(node, _)| node.clone()))
            .collect()
    }

    /// All Datasets that any node has something of.
    pub(crate) fn all_present(&self) -> BTreeSet<String> {
        let state = self.state.lock();
        let workers = state.workers.values().flat_map(|worker| worker.present.iter());
        let drivers = state.drivers.values().flat_map(|driver| driver.present.iter());
        workers.chain(drivers).cloned().collect()
    }

    /// Nodes that have, or had, a driver.
    pub(crate) fn driver_nodes(&self) -> Vec<String> {
        self.state.lock().drivers.keys().cloned().collect()
    }

    /// A node that is gone for good takes its views with it.
    pub(crate) fn forget_node(&self, node: &str) {
        let gone = {
            let mut state = self.state.lock();
            match state.drivers.get(node) {
                Some(driver) if driver.stream.is_none() => state.drivers.remove(node),
                _ => None,
            }
        };
        for view in gone.into_iter().flat_map(|driver| driver.views) {
            self.touch(&view.dataset_uid);
        }
    }

    /// Connected workers and drivers.
    pub(crate) fn connected(&self) -> (usize, usize) {
        let state = self.state.lock();
        let drivers = state.drivers.values().filter(|driver| driver.stream.is_some());
        (state.workers.len(), drivers.count())
    }

    fn touch(&self, uid: &str) {
        // Nobody listens before the reconcilers run.
        let _nobody = self.touched.send(uid.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use plan::driver_report::Report;

    use super::*;

    fn view(abnormal: Option<&str>) -> Report {
        Report::PutView(plan::View {
            key: Some(plan::ViewKey {
                volume_id: "v".to_owned(),
                target: "/pods/a".to_owned(),
            }),
            dataset_uid: "d".to_owned(),
            abnormal: abnormal.map(str::to_owned),
            ..plan::View::default()
        })
    }

    #[test]
    fn a_condition_is_news_once_also_to_a_driver_that_comes_back() {
        let fleet = NodeReports::new();
        let mut news = fleet.conditions();
        let mut told = |report| {
            fleet.apply_driver_report("n1", report);
            news.try_recv().ok()?.abnormal
        };
        fleet.driver_begins("n1");
        assert_eq!(told(view(None)), None);
        assert_eq!(told(view(Some(""))), None);
        assert_eq!(told(Report::Synced(plan::Synced {})), None);
        assert_eq!(told(view(Some("no worker"))).as_deref(), Some("no worker"));
        assert_eq!(told(view(Some("no worker"))), None);
        fleet.driver_begins("n1");
        assert_eq!(told(view(None)), None);
        assert_eq!(told(Report::Synced(plan::Synced {})), None);
        assert_eq!(told(view(Some("no worker"))), None);
        assert_eq!(told(view(Some(""))).as_deref(), Some(""));
    }

    #[test]
    fn what_workers_cannot_use_is_known_by_node_while_they_are_there() {
        use plan::worker_report::Report;
        let fleet = NodeReports::new();
        let mut pools = fleet.touched_pools();
        let stream = fleet.worker_begins("n1", "gpu");
        fleet.worker_begins("n2", "gpu");
        fleet.worker_begins("n1", "other");
        assert!(fleet.withheld("gpu").is_empty());
        let withheld_bytes = 7;
        fleet.apply_worker_report("n1", "gpu", Report::Tier(plan::TierState { withheld_bytes }));
        assert_eq!(pools.try_recv().unwrap(), "gpu");
        assert_eq!(fleet.withheld("gpu"), [("n1".to_owned(), 7)].into());
        assert!(fleet.withheld("other").is_empty());
        fleet.worker_ends("n1", "gpu", stream);
        assert!(fleet.withheld("gpu").is_empty());
    }

    #[test]
    fn only_what_came_or_went_is_touched() {
        let fleet = NodeReports::new();
        fleet.worker_begins("n1", "gpu");
        let present = |uids: &[&str]| {
            let dataset_uids = uids.iter().map(|uid| (*uid).to_owned()).collect();
            plan::worker_report::Report::Present(plan::Present { dataset_uids })
        };
        fleet.apply_worker_report("n1", "gpu", present(&["a", "b"]));
        let mut touched = fleet.touched();
        fleet.apply_worker_report("n1", "gpu", present(&["b", "c"]));
        assert_eq!(touched.try_recv().unwrap(), "a");
        assert_eq!(touched.try_recv().unwrap(), "c");
        assert!(touched.try_recv().is_err());
    }
}
