//! The controller's plan as received by this node, also on the disk for a driver that starts while the controller is
//! unavailable.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use millpond_cluster::{DriverPlan, PlanEvent};
use millpond_wire::plan::driver_change::Change;
use millpond_wire::plan::{DriverChange, DriverDataset, Pool};
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use super::reports::Reports;

/// Debounce of writes to the disk: each writes the complete plan.
const WRITE_DEBOUNCE: Duration = Duration::from_millis(250);

/// First bytes of the file: its kind and version.
const MAGIC: &[u8] = b"millpond plan 1\n";

/// Returns whether a uid or a pool's name is a plain file name.
fn is_plain(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    !name.is_empty() && name.len() <= 253 && !name.starts_with('.') && name.bytes().all(allowed)
}

/// Datasets and pools that this node needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Whether a complete plan was ever received. Before, a missing entry has no meaning.
    pub synced: bool,
    /// Datasets by uid.
    pub datasets: BTreeMap<String, DriverDataset>,
    /// Pools by name.
    pub pools: BTreeMap<String, Pool>,
}

impl Plan {
    /// Returns the Dataset of that name.
    pub fn named(&self, namespace: &str, name: &str) -> Option<&DriverDataset> {
        self.datasets
            .values()
            .find(|dataset| dataset.namespace == namespace && dataset.name == name)
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::PutDataset(dataset) if is_plain(&dataset.uid) => {
                self.datasets.insert(dataset.uid.clone(), dataset);
            }
            Change::PutPool(pool) if is_plain(&pool.name) => {
                self.pools.insert(pool.name.clone(), pool);
            }
            Change::PutDataset(_) | Change::PutPool(_) => {
                warn!("invalid Dataset uid or pool name in the plan; ignored");
            }
            Change::RemoveDataset(uid) => {
                self.datasets.remove(&uid);
            }
            Change::RemovePool(name) => {
                self.pools.remove(&name);
            }
            Change::Synced(_) => self.synced = true,
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let datasets = self.datasets.values().cloned().map(Change::PutDataset);
        let pools = self.pools.values().cloned().map(Change::PutPool);
        for change in pools.chain(datasets) {
            let change = DriverChange { change: Some(change) };
            bytes.extend(change.encode_length_delimited_to_vec());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let mut plan = Self {
            synced: true,
            ..Self::default()
        };
        while !rest.is_empty() {
            plan.apply(DriverChange::decode_length_delimited(&mut rest).ok()?.change?);
        }
        Some(plan)
    }
}

/// Store of the newest plan, with change notification.
#[derive(Debug)]
pub struct PlanStore {
    file: PathBuf,
    plan: watch::Sender<Arc<Plan>>,
}

impl PlanStore {
    /// Opens the store with the plan in `file`, if there is a valid one.
    pub fn open(file: PathBuf) -> Arc<Self> {
        let plan = match std::fs::read(&file) {
            Ok(bytes) => Plan::decode(&bytes).unwrap_or_else(|| {
                warn!(file = %file.display(), "the plan on the disk is invalid; waiting for the controller");
                Plan::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Plan::default(),
            Err(error) => {
                warn!(file = %file.display(), %error, "failed to read the plan on the disk; waiting for the controller");
                Plan::default()
            }
        };
        Arc::new(Self {
            file,
            plan: watch::Sender::new(Arc::new(plan)),
        })
    }

    /// Returns a receiver of the plan and its changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Plan>> {
        self.plan.subscribe()
    }

    /// Returns the current plan.
    pub fn now(&self) -> Arc<Plan> {
        Arc::clone(&self.plan.borrow())
    }

    /// Replaces the plan; returns whether it changed, and so has to be written to the disk.
    pub(super) fn set(&self, plan: Plan) -> bool {
        self.plan.send_if_modified(|known| {
            let is_another = **known != plan;
            if is_another {
                *known = Arc::new(plan);
            }
            is_another
        })
    }

    /// Writes the plan to the disk.
    pub(super) fn write_to_disk(&self) {
        if let Err(error) = write(&self.file, &self.now().encode()) {
            warn!(file = %self.file.display(), %error, "failed to write the plan to the disk; retried at its next change");
        }
    }
}

/// Writes a file atomically: a crash leaves the old one or the new one.
pub(super) fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, bytes)?;
    std::fs::File::open(&new)?.sync_all()?;
    std::fs::rename(&new, file)
}

/// Task that applies the plan stream to the store and sends reports to the controller.
pub struct PlanSync {
    /// Store of the plan.
    pub store: Arc<PlanStore>,
    /// Reports to the controller.
    pub reports: Arc<Reports>,
    /// Events of the plan stream.
    pub events: mpsc::Receiver<PlanEvent<DriverPlan>>,
}

impl PlanSync {
    /// Runs until the events end.
    pub async fn run(mut self) {
        // A new stream sends the complete plan first; until it is synced the old plan applies.
        let mut incoming: Option<Plan> = None;
        let mut stream = None;
        let mut write_at: Option<Instant> = None;
        loop {
            let written = async move {
                match write_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = self.events.recv() => match event {
                    None => break,
                    Some(PlanEvent::Connected(sender)) => {
                        incoming = Some(Plan::default());
                        stream = self.reports.all(&sender).await.then_some(sender);
                    }
                    Some(PlanEvent::Disconnected) => {
                        incoming = None;
                        stream = None;
                    }
                    Some(PlanEvent::Change(change)) => {
                        if self.change(change, &mut incoming) {
                            write_at.get_or_insert_with(|| Instant::now() + WRITE_DEBOUNCE);
                        }
                    }
                },
                () = written => {
                    write_at = None;
                    self.write_to_disk().await;
                }
                () = self.reports.wait(), if stream.is_some() => {
                    if let Some(sender) = stream.take() {
                        stream = self.reports.changes(&sender).await.then_some(sender);
                    }
                }
            }
        }
        if write_at.is_some() {
            self.write_to_disk().await;
        }
    }

    /// Applies a change; returns whether the current plan changed.
    fn change(&self, change: DriverChange, incoming: &mut Option<Plan>) -> bool {
        let Some(change) = change.change else { return false };
        let synced = matches!(change, Change::Synced(_));
        let plan = match incoming {
            Some(plan) => {
                plan.apply(change);
                if !synced {
                    return false;
                }
                info!(
                    datasets = plan.datasets.len(),
                    pools = plan.pools.len(),
                    "plan synced"
                );
                incoming.take().unwrap_or_default()
            }
            None => {
                let mut plan = (*self.store.now()).clone();
                plan.apply(change);
                plan
            }
        };
        self.store.set(plan)
    }

    async fn write_to_disk(&self) {
        let store = Arc::clone(&self.store);
        if let Err(error) = tokio::task::spawn_blocking(move || store.write_to_disk()).await {
            warn!(%error, "failed to write the plan to the disk; retried at its next change");
        }
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_plan_comes_back_from_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("plan");
        let store = PlanStore::open(file.clone());
        assert!(!store.now().synced);
        let mut plan = Plan::default();
        plan.apply(Change::PutDataset(DriverDataset {
            uid: "u1".to_owned(),
            namespace: "a".to_owned(),
            name: "b".to_owned(),
            ..DriverDataset::default()
        }));
        plan.apply(Change::PutDataset(DriverDataset {
            uid: "../evil".to_owned(),
            ..DriverDataset::default()
        }));
        plan.apply(Change::Synced(millpond_wire::plan::Synced {}));
        assert!(store.set(plan.clone()));
        assert!(!store.set(plan.clone()));
        store.write_to_disk();
        let again = PlanStore::open(file.clone()).now();
        assert_eq!(*again, plan);
        assert_eq!(again.datasets.len(), 1, "a uid that is a path is invalid");
        assert!(again.named("a", "b").is_some());
        std::fs::write(&file, b"millpond plan 1\n\xff\xff").unwrap();
        assert!(!PlanStore::open(file).now().synced);
    }
}
