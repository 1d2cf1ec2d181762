//! The changes of the plan, applied.
//!
//! A stream tells the whole plan first: what a Dataset or a load of before is not in it is let go of at its end, its bytes
//! stay. Bytes are deleted only where the controller says that a Dataset is removed.

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

/// A removal is much small work for the disk, which has others to serve.
const MAX_CONCURRENT_REMOVALS: usize = 4;

/// Follows the plan and keeps what it says.
pub(super) struct PlanApplier {
    setup: Arc<WorkerContext>,
    datasets: Arc<Datasets>,
    loads: Arc<Loads>,
    kept: HashMap<String, DatasetHandle>,
    /// Datasets whose bytes are being deleted; what the plan says of one that has come again meanwhile.
    removing: HashMap<String, Option<plan::Dataset>>,
    removals: JoinSet<String>,
    /// How many are deleted at once.
    removal_permits: Arc<Semaphore>,
    /// What the current stream has said, until all is said.
    said: Option<(HashSet<String>, HashSet<String>)>,
    /// The current stream's reports.
    reports: Option<mpsc::Sender<plan::WorkerReport>>,
}

impl PlanApplier {
    pub(super) fn new(setup: Arc<WorkerContext>, datasets: Arc<Datasets>, loads: Arc<Loads>) -> Self {
        Self {
            setup,
            datasets,
            loads,
            kept: HashMap::new(),
            removing: HashMap::new(),
            removals: JoinSet::new(),
            removal_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_REMOVALS)),
            said: None,
            reports: None,
        }
    }

    /// Where reports go now; `None` while the controller is away.
    pub(super) fn reports(&self) -> Option<&mpsc::Sender<plan::WorkerReport>> {
        self.reports.as_ref()
    }

    /// What is wrong with each Dataset.
    pub(super) fn problems(&self) -> impl Iterator<Item = (&str, Vec<plan::Problem>)> {
        self.kept
            .iter()
            .map(|(uid, kept)| (uid.as_str(), kept.problems()))
    }

    pub(super) async fn apply(&mut self, event: PlanEvent<WorkerPlan>) {
        match event {
            PlanEvent::Connected(reports) => {
                self.said = Some(Default::default());
                self.reports = Some(reports);
                self.report_present().await;
            }
            PlanEvent::Disconnected => {
                self.said = None;
                self.reports = None;
            }
            PlanEvent::Change(plan::WorkerChange { change }) => {
                if let Some(change) = change {
                    self.change(change).await;
                }
            }
        }
    }

    /// Ends all Datasets; what is cached stays.
    pub(super) async fn stop(self) {
        let stops = self.kept.into_values().map(DatasetHandle::stop);
        futures::future::join_all(stops).await;
    }

    async fn change(&mut self, change: plan::worker_change::Change) {
        use plan::worker_change::Change;
        match change {
            Change::PutDataset(dataset) => self.put(dataset),
            Change::RemoveDataset(uid) => self.remove(uid),
            Change::PutLoad(load) => {
                if let Some((_, loads)) = &mut self.said {
                    loads.insert(load.uid.clone());
                }
                self.loads.put(load);
            }
            Change::RemoveLoad(uid) => self.loads.remove(&uid),
            Change::Synced(plan::Synced {}) => {
                if let Some((datasets, loads)) = self.said.take() {
                    self.loads.keep_only(&loads);
                    self.close_unplanned(&datasets).await;
                }
            }
        }
    }

    fn put(&mut self, dataset: plan::Dataset) {
        let uid = dataset.uid.clone();
        if !is_uid(&uid) {
            warn!(uid, "the plan has a Dataset whose uid is none");
            return;
        }
        if let Some((datasets, _)) = &mut self.said {
            datasets.insert(uid.clone());
        }
        if let Some(waits) = self.removing.get_mut(&uid) {
            *waits = Some(dataset);
            return;
        }
        match self.kept.get(&uid) {
            Some(kept) => kept.change(dataset),
            None => {
                info!(
                    dataset = dataset.name,
                    namespace = dataset.namespace,
                    uid,
                    "keeps a Dataset"
                );
                let kept = DatasetHandle::start(dataset, Arc::clone(&self.setup), Arc::clone(&self.datasets));
                self.kept.insert(uid, kept);
            }
        }
    }

    /// Begins to delete a Dataset's bytes, which may take minutes: all others are served meanwhile.
    fn remove(&mut self, uid: String) {
        if !is_uid(&uid) {
            warn!(uid, "the plan removes a Dataset whose uid is none");
            return;
        }
        if self.removing.insert(uid.clone(), None).is_some() {
            return;
        }
        let kept = self.kept.remove(&uid);
        let (directories, turns) = (
            self.setup.tiers.directories(&uid),
            Arc::clone(&self.removal_permits),
        );
        self.removals.spawn(async move {
            // Never closed.
            let _turn = turns.acquire_owned().await;
            if let Some(kept) = kept {
                kept.stop().await;
            }
            match dataset_task::remove(directories).await {
                Ok(()) => info!(uid, "removed a Dataset and its bytes"),
                Err(error) => error!(uid, %error, "failed to remove a Dataset's bytes"),
            }
            uid
        });
    }

    /// Waits until a Dataset's bytes are deleted; its uid, for [`finish_removal`](Self::finish_removal).
    pub(super) async fn removed(&mut self) -> String {
        loop {
            match self.removals.join_next().await {
                Some(Ok(uid)) => return uid,
                Some(Err(error)) => error!(%error, "the removal of a Dataset panicked"),
                None => std::future::pending().await,
            }
        }
    }

    /// Says what is here now, and takes up a Dataset that came again while it was being deleted.
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
            .kept
            .keys()
            .filter(|uid| !datasets.contains(*uid))
            .cloned()
            .collect();
        for uid in others {
            if let Some(kept) = self.kept.remove(&uid) {
                info!(uid, "the plan has no such Dataset any more: its bytes stay");
                kept.stop().await;
            }
        }
    }

    /// Says whose bytes are here.
    async fn report_present(&self) {
        let Some(reports) = &self.reports else { return };
        let tiers = self.setup.tiers.clone();
        let present = tokio::task::spawn_blocking(move || tiers.present()).await;
        let dataset_uids = match present.map_err(std::io::Error::other).flatten() {
            Ok(uids) => uids,
            Err(error) => {
                error!(%error, "failed to look whose bytes are here");
                return;
            }
        };
        let report = plan::worker_report::Report::Present(plan::Present { dataset_uids });
        // A controller that is gone is told anew.
        let _gone = reports.send(plan::WorkerReport { report: Some(report) }).await;
    }
}
