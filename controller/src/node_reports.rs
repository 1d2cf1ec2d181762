//! The last reports of the node processes, in memory.
//!
//! The reports of a worker are retained as long as its stream is open. The views of a driver outlive its stream: their pods keep
//! reading while the next driver starts, which then reports all views again. Subscribers receive the keys of what has
//! changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use millpond_wire::plan;
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::time::Instant;

/// Keys that a subscriber has not received yet; a slower one misses some.
const QUEUE_CAPACITY: usize = 4_096;

#[derive(Debug, Default)]
struct Worker {
    /// The number of the stream: the end of a stream that was replaced must not remove its successor.
    stream: u64,
    present: BTreeSet<String>,
    /// Bytes of the disk tier's capacity that it cannot use.
    withheld_bytes: u64,
    datasets: HashMap<String, plan::DatasetState>,
    loads: HashMap<String, plan::LoadState>,
}

#[derive(Debug, Default)]
struct Driver {
    /// `None`: it is not connected.
    stream: Option<u64>,
    present: BTreeSet<String>,
    views: Vec<plan::View>,
    /// The views that the current stream has reported, until it has reported all; they replace `views` then.
    incoming: Option<Vec<plan::View>>,
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
    /// When this process began to receive reports.
    started: Instant,
}

impl NodeReports {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            touched: broadcast::Sender::new(QUEUE_CAPACITY),
            pools: broadcast::Sender::new(QUEUE_CAPACITY),
            conditions: broadcast::Sender::new(QUEUE_CAPACITY),
            started: Instant::now(),
        })
    }

    /// Subscribes to the uids of Datasets and loads whose reports have changed.
    pub(crate) fn touched(&self) -> broadcast::Receiver<String> {
        self.touched.subscribe()
    }

    /// Subscribes to the names of pools whose workers have reported their tiers.
    pub(crate) fn touched_pools(&self) -> broadcast::Receiver<String> {
        self.pools.subscribe()
    }

    /// Subscribes to views that have become abnormal, or normal again.
    pub(crate) fn conditions(&self) -> broadcast::Receiver<plan::View> {
        self.conditions.subscribe()
    }

    /// Returns whether every running process has had time to report.
    pub(crate) fn startup_grace_over(&self, grace: std::time::Duration) -> bool {
        self.started.elapsed() >= grace
    }

    /// Begins the stream of a worker, in place of one that has not ended yet. Returns its number.
    pub(crate) fn worker_connected(&self, node: &str, pool: &str) -> u64 {
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

    /// Ends a stream of a worker, and drops its reports unless another stream has begun.
    pub(crate) fn worker_disconnected(&self, node: &str, pool: &str, stream: u64) {
        let key = (node.to_owned(), pool.to_owned());
        let removed = {
            let mut state = self.state.lock();
            match state.workers.get(&key) {
                Some(worker) if worker.stream == stream => state.workers.remove(&key),
                _ => None,
            }
        };
        if let Some(worker) = removed {
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
                    // Without a receiver before the reconcilers run.
                    let _no_receiver = self.pools.send(pool.to_owned());
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

    /// Begins the stream of a driver. Returns its number.
    pub(crate) fn driver_connected(&self, node: &str) -> u64 {
        let mut state = self.state.lock();
        state.streams += 1;
        let stream = state.streams;
        let driver = state.drivers.entry(node.to_owned()).or_default();
        driver.stream = Some(stream);
        driver.incoming = Some(Vec::new());
        stream
    }

    /// Ends a stream of a driver, unless another one has begun.
    pub(crate) fn driver_disconnected(&self, node: &str, stream: u64) {
        if let Some(driver) = self.state.lock().drivers.get_mut(node)
            && driver.stream == Some(stream)
        {
            driver.stream = None;
            driver.incoming = None;
        }
    }

    pub(crate) fn apply_driver_report(&self, node: &str, report: plan::driver_report::Report) {
        use plan::driver_report::Report;
        let mut touched = Vec::new();
        if let Some(driver) = self.state.lock().drivers.get_mut(node) {
            match report {
                Report::PutView(mut view) => {
                    touched.push(view.dataset_uid.clone());
                    let known = driver.incoming.iter().flatten().chain(&driver.views);
                    let known = known.into_iter().find(|known| known.key == view.key);
                    let before = known.and_then(|known| known.abnormal.clone());
                    match &view.abnormal {
                        None => view.abnormal = before,
                        Some(now) if *now != before.unwrap_or_default() => {
                            // Without a receiver before the reconcilers run.
                            let _no_receiver = self.conditions.send(view.clone());
                        }
                        Some(_as_before) => {}
                    }
                    let views = driver.incoming.as_mut().unwrap_or(&mut driver.views);
                    views.retain(|known| known.key != view.key);
                    views.push(view);
                }
                Report::RemoveView(key) => {
                    let removed = driver
                        .views
                        .extract_if(.., |view| view.key.as_ref() == Some(&key));
                    touched.extend(removed.map(|view| view.dataset_uid));
                    if let Some(incoming) = &mut driver.incoming {
                        incoming.retain(|view| view.key.as_ref() != Some(&key));
                    }
                }
                Report::Synced(plan::Synced {}) => {
                    if let Some(incoming) = driver.incoming.take() {
                        touched.extend(driver.views.iter().map(|view| view.dataset_uid.clone()));
                        driver.views = incoming;
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

    /// Returns the state of a Dataset on each connected worker, with the name of its node.
    pub(crate) fn dataset(&self, uid: &str) -> Vec<(String, plan::DatasetState)> {
        let state = self.state.lock();
        let of = |((node, _), worker): (&(String, String), &Worker)| {
            Some((node.clone(), worker.datasets.get(uid)?.clone()))
        };
        state.workers.iter().filter_map(of).collect()
    }

    /// Returns the state of a load on each connected worker of a pool; `None` for one that has not reported it.
    pub(crate) fn load(&self, uid: &str, pool: &str) -> Vec<Option<plan::LoadState>> {
        let state = self.state.lock();
        state
            .of_pool(pool)
            .map(|worker| worker.loads.get(uid).cloned())
            .collect()
    }

    /// Returns the bytes that a pool's workers have cached.
    pub(crate) fn used_bytes(&self, pool: &str) -> u64 {
        let state = self.state.lock();
        state
            .of_pool(pool)
            .flat_map(|worker| worker.datasets.values())
            .map(|dataset| dataset.cached_bytes)
            .sum()
    }

    /// Returns the nodes of a pool with a short disk, and the bytes of the capacity that their workers cannot use.
    pub(crate) fn withheld(&self, pool: &str) -> BTreeMap<String, u64> {
        let state = self.state.lock();
        let of_pool = state.workers.iter().filter(|((_, name), _)| name == pool);
        of_pool
            .filter(|(_, worker)| worker.withheld_bytes > 0)
            .map(|((node, _), worker)| (node.clone(), worker.withheld_bytes))
            .collect()
    }

    /// Returns the pods that have mounted a Dataset, as namespace/name.
    pub(crate) fn pods(&self, uid: &str) -> BTreeSet<String> {
        let state = self.state.lock();
        let views = state
            .drivers
            .values()
            .flat_map(|driver| driver.views.iter().chain(driver.incoming.iter().flatten()));
        views
            .filter(|view| view.dataset_uid == uid)
            .map(|view| format!("{}/{}", view.pod_namespace, view.pod_name))
            .collect()
    }

    /// Returns the nodes that have bytes or mounts of a Dataset.
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

    /// Returns the uids of all Datasets of which a node has bytes or mounts.
    pub(crate) fn all_present(&self) -> BTreeSet<String> {
        let state = self.state.lock();
        let workers = state.workers.values().flat_map(|worker| worker.present.iter());
        let drivers = state.drivers.values().flat_map(|driver| driver.present.iter());
        workers.chain(drivers).cloned().collect()
    }

    /// Returns the nodes with a driver, connected or not.
    pub(crate) fn driver_nodes(&self) -> Vec<String> {
        self.state.lock().drivers.keys().cloned().collect()
    }

    /// Drops the reports of a driver whose node was deleted. Does nothing while it is connected.
    pub(crate) fn forget_node(&self, node: &str) {
        let removed = {
            let mut state = self.state.lock();
            match state.drivers.get(node) {
                Some(driver) if driver.stream.is_none() => state.drivers.remove(node),
                _ => None,
            }
        };
        for view in removed.into_iter().flat_map(|driver| driver.views) {
            self.touch(&view.dataset_uid);
        }
    }

    /// Returns the numbers of connected workers and drivers.
    pub(crate) fn connected(&self) -> (usize, usize) {
        let state = self.state.lock();
        let drivers = state.drivers.values().filter(|driver| driver.stream.is_some());
        (state.workers.len(), drivers.count())
    }

    fn touch(&self, uid: &str) {
        // Without a receiver before the reconcilers run.
        let _no_receiver = self.touched.send(uid.to_owned());
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
    fn a_condition_is_published_once_also_for_a_driver_that_reconnects() {
        let reports = NodeReports::new();
        let mut news = reports.conditions();
        let mut published = |report| {
            reports.apply_driver_report("n1", report);
            news.try_recv().ok()?.abnormal
        };
        reports.driver_connected("n1");
        assert_eq!(published(view(None)), None);
        assert_eq!(published(view(Some(""))), None);
        assert_eq!(published(Report::Synced(plan::Synced {})), None);
        assert_eq!(published(view(Some("no worker"))).as_deref(), Some("no worker"));
        assert_eq!(published(view(Some("no worker"))), None);
        reports.driver_connected("n1");
        assert_eq!(published(view(None)), None);
        assert_eq!(published(Report::Synced(plan::Synced {})), None);
        assert_eq!(published(view(Some("no worker"))), None);
        assert_eq!(published(view(Some(""))).as_deref(), Some(""));
    }

    #[test]
    fn withheld_bytes_are_known_by_node_while_workers_are_connected() {
        use plan::worker_report::Report;
        let reports = NodeReports::new();
        let mut pools = reports.touched_pools();
        let stream = reports.worker_connected("n1", "gpu");
        reports.worker_connected("n2", "gpu");
        reports.worker_connected("n1", "other");
        assert!(reports.withheld("gpu").is_empty());
        let withheld_bytes = 7;
        reports.apply_worker_report("n1", "gpu", Report::Tier(plan::TierState { withheld_bytes }));
        assert_eq!(pools.try_recv().unwrap(), "gpu");
        assert_eq!(reports.withheld("gpu"), [("n1".to_owned(), 7)].into());
        assert!(reports.withheld("other").is_empty());
        reports.worker_disconnected("n1", "gpu", stream);
        assert!(reports.withheld("gpu").is_empty());
    }

    #[test]
    fn only_added_and_removed_datasets_are_touched() {
        let reports = NodeReports::new();
        reports.worker_connected("n1", "gpu");
        let present = |uids: &[&str]| {
            let dataset_uids = uids.iter().map(|uid| (*uid).to_owned()).collect();
            plan::worker_report::Report::Present(plan::Present { dataset_uids })
        };
        reports.apply_worker_report("n1", "gpu", present(&["a", "b"]));
        let mut touched = reports.touched();
        reports.apply_worker_report("n1", "gpu", present(&["b", "c"]));
        assert_eq!(touched.try_recv().unwrap(), "a");
        assert_eq!(touched.try_recv().unwrap(), "c");
        assert!(touched.try_recv().is_err());
    }
}
