//! Applies the changes of the plan.
//!
//! A stream sends the complete plan first: at its end Datasets and loads that are not in it are closed, cached data stays.
//! Cached data is deleted only when the controller sends the removal of a Dataset.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use millpond_cluster::{PlanEvent, WorkerPlan};
use millpond_wire::plan;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::context::WorkerContext;
use super::dataset_task::{self, DatasetHandle};
use super::loads::Loads;
use super::tiers::is_uid;
use crate::service::Datasets;

/// Bounded, since a removal causes many small writes on a disk that also serves reads.
const MAX_CONCURRENT_REMOVALS: usize = 4;

/// Task state that applies the plan to Datasets and loads.
pub(super) struct PlanApplier {
    context: Arc<WorkerContext>,
    datasets: Arc<Datasets>,
    loads: Arc<Loads>,
    handles: HashMap<String, DatasetHandle>,
    /// Datasets whose data is being deleted; with the plan of one that was added again meanwhile.
    removing: HashMap<String, Option<plan::Dataset>>,
    removals: JoinSet<String>,
    /// Permits of concurrent removals.
    removal_permits: Arc<Semaphore>,
    /// Uids of Datasets and loads that the current stream has sent; `None` once it is synced.
    received: Option<(HashSet<String>, HashSet<String>)>,
    /// Sender of the current stream's reports.
    reports: Option<mpsc::Sender<plan::WorkerReport>>,
}

impl PlanApplier {
    pub(super) fn new(context: Arc<WorkerContext>, datasets: Arc<Datasets>, loads: Arc<Loads>) -> Self {
        Self {
            context,
            datasets,
            loads,
            handles: HashMap::new(),
            removing: HashMap::new(),
            removals: JoinSet::new(),
            removal_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_REMOVALS)),
            received: None,
            reports: None,
        }
    }

    /// Returns the sender of reports; `None` while the controller is disconnected.
    pub(super) fn reports(&self) -> Option<&mpsc::Sender<plan::WorkerReport>> {
        self.reports.as_ref()
    }

    /// Returns the problems of each Dataset.
    pub(super) fn problems(&self) -> impl Iterator<Item = (&str, Vec<plan::Problem>)> {
        self.handles
            .iter()
            .map(|(uid, handle)| (uid.as_str(), handle.problems()))
    }

    pub(super) async fn apply(&mut self, event: PlanEvent<WorkerPlan>) {
        match event {
            PlanEvent::Connected(reports) => {
                self.received = Some(Default::default());
                self.reports = Some(reports);
                self.report_present().await;
            }
            PlanEvent::Disconnected => {
                self.received = None;
                self.reports = None;
            }
            PlanEvent::Change(plan::WorkerChange { change }) => {
                if let Some(change) = change {
                    self.change(change).await;
                }
            }
        }
    }

    /// Closes all Datasets; cached data stays.
    pub(super) async fn stop(self) {
        let stops = self.handles.into_values().map(DatasetHandle::stop);
        futures::future::join_all(stops).await;
    }

    async fn change(&mut self, change: plan::worker_change::Change) {
        use plan::worker_change::Change;
        match change {
            Change::PutDataset(dataset) => self.put(dataset),
            Change::RemoveDataset(uid) => self.remove(uid),
            Change::PutLoad(load) => {
                if let Some((_, loads)) = &mut self.received {
                    loads.insert(load.uid.clone());
                }
                self.loads.put(load);
            }
            Change::RemoveLoad(uid) => self.loads.remove(&uid),
            Change::Synced(plan::Synced {}) => {
                if let Some((datasets, loads)) = self.received.take() {
                    self.loads.retain(&loads);
                    self.close_unplanned(&datasets).await;
                }
            }
        }
    }

    fn put(&mut self, dataset: plan::Dataset) {
        let uid = dataset.uid.clone();
        if !is_uid(&uid) {
            warn!(uid, "invalid Dataset uid in the plan; ignored");
            return;
        }
        if let Some((datasets, _)) = &mut self.received {
            datasets.insert(uid.clone());
        }
        if let Some(pending) = self.removing.get_mut(&uid) {
            *pending = Some(dataset);
            return;
        }
        match self.handles.get(&uid) {
            Some(handle) => handle.change(dataset),
            None => {
                info!(
                    dataset = dataset.name,
                    namespace = dataset.namespace,
                    uid,
                    "Dataset added by the plan"
                );
                let handle =
                    DatasetHandle::start(dataset, Arc::clone(&self.context), Arc::clone(&self.datasets));
                self.handles.insert(uid, handle);
            }
        }
    }

    /// Starts to delete a Dataset's data, which may take minutes: other Datasets are served meanwhile.
    fn remove(&mut self, uid: String) {
        if !is_uid(&uid) {
            warn!(uid, "invalid Dataset uid in the plan; ignored");
            return;
        }
        if self.removing.insert(uid.clone(), None).is_some() {
            return;
        }
        let handle = self.handles.remove(&uid);
        let (directories, permits) = (
            self.context.tiers.directories(&uid),
            Arc::clone(&self.removal_permits),
        );
        self.removals.spawn(async move {
            // The semaphore is never closed.
            let _permit = permits.acquire_owned().await;
            if let Some(handle) = handle {
                handle.stop().await;
            }
            match dataset_task::remove(directories).await {
                Ok(()) => info!(uid, "removed a Dataset and its cached data"),
                Err(error) => error!(uid, %error, "failed to remove a Dataset's cached data"),
            }
            uid
        });
    }

    /// Waits until a Dataset's data is deleted; returns its uid, for [`finish_removal`](Self::finish_removal).
    pub(super) async fn removed(&mut self) -> String {
        loop {
            match self.removals.join_next().await {
                Some(Ok(uid)) => return uid,
                Some(Err(error)) => error!(%error, "the removal of a Dataset panicked"),
                None => std::future::pending().await,
            }
        }
    }

    /// Reports the cached Datasets, and opens a Dataset that was added again while it was being deleted.
    pub(super) async fn finish_removal(&mut self, uid: String) {
        let others = std::iter::from_fn(|| self.removals.try_join_next());
        let others: Vec<String> = others.flatten().collect();
        for uid in others.into_iter().chain([uid]) {
            if let Some(Some(dataset)) = self.removing.remove(&uid) {
                self.put(dataset);
            }
        }
        self.report_present().await;
    }

    async fn close_unplanned(&mut self, datasets: &HashSet<String>) {
        let others: Vec<String> = self
            .handles
            .keys()
            .filter(|uid| !datasets.contains(*uid))
            .cloned()
            .collect();
        for uid in others {
            if let Some(handle) = self.handles.remove(&uid) {
                info!(uid, "Dataset left the plan; closed, cached data kept");
                handle.stop().await;
            }
        }
    }

    /// Reports the Datasets with cached data on disk.
    async fn report_present(&self) {
        let Some(reports) = &self.reports else { return };
        let tiers = self.context.tiers.clone();
        let present = tokio::task::spawn_blocking(move || tiers.present()).await;
        let dataset_uids = match present.map_err(std::io::Error::other).flatten() {
            Ok(uids) => uids,
            Err(error) => {
                error!(%error, "failed to list cached Datasets on disk; nothing reported");
                return;
            }
        };
        let report = plan::worker_report::Report::Present(plan::Present { dataset_uids });
        // After a reconnect everything is reported again.
        let _disconnected = reports.send(plan::WorkerReport { report: Some(report) }).await;
    }
}
