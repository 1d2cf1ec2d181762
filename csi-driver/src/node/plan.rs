//! The controller's plan, as far as it is known here, and on the disk for a driver that starts while the controller is away.

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

/// Changes of a moment are written down together: each time it is all of the plan.
const WRITE_DEBOUNCE: Duration = Duration::from_millis(250);

/// What the file begins with: its kind and version.
const MAGIC: &[u8] = b"millpond plan 1\n";

/// A uid or a pool's name that can be a file's.
fn is_plain(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    !name.is_empty() && name.len() <= 253 && !name.starts_with('.') && name.bytes().all(allowed)
}

/// What is to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Whether it was ever whole. Before, nothing follows from what is not in it.
    pub synced: bool,
    /// By uid.
    pub datasets: BTreeMap<String, DriverDataset>,
    /// By name.
    pub pools: BTreeMap<String, Pool>,
}

impl Plan {
    /// The Dataset of that name.
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
                warn!("the plan names a Dataset or pool that no file can be named after: passed over");
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

/// The newest plan, for all who go by it.
#[derive(Debug)]
pub struct PlanStore {
    file: PathBuf,
    plan: watch::Sender<Arc<Plan>>,
}

impl PlanStore {
    /// Begins with the plan in `file`, if there is one that can be read.
    pub fn open(file: PathBuf) -> Arc<Self> {
        let plan = match std::fs::read(&file) {
            Ok(bytes) => Plan::decode(&bytes).unwrap_or_else(|| {
                warn!(file = %file.display(), "the plan on the disk cannot be read: waits for the controller");
                Plan::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Plan::default(),
            Err(error) => {
                warn!(file = %file.display(), %error, "failed to read the plan on the disk");
                Plan::default()
            }
        };
        Arc::new(Self {
            file,
            plan: watch::Sender::new(Arc::new(plan)),
        })
    }

    /// The plan, now and whenever it changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Plan>> {
        self.plan.subscribe()
    }

    /// The plan now.
    pub fn now(&self) -> Arc<Plan> {
        Arc::clone(&self.plan.borrow())
    }

    /// Makes `plan` the one that holds; whether it is another than before, which has to be written down.
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
    pub(super) fn write_down(&self) {
        if let Err(error) = write(&self.file, &self.now().encode()) {
            warn!(file = %self.file.display(), %error, "failed to write the plan to the disk");
        }
    }
}

/// Writes a file in one step: a crash leaves the old one or the new one.
pub(super) fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, bytes)?;
    std::fs::File::open(&new)?.sync_all()?;
    std::fs::rename(&new, file)
}

/// Keeps the store up to date, and the controller informed.
pub struct PlanSync {
    /// What is kept.
    pub store: Arc<PlanStore>,
    /// What is told.
    pub reports: Arc<Reports>,
    /// What comes.
    pub events: mpsc::Receiver<PlanEvent<DriverPlan>>,
}

impl PlanSync {
    /// Follows until the events end.
    pub async fn run(mut self) {
        // A new stream tells all from its beginning; until that is done the old plan holds.
        let mut coming: Option<Plan> = None;
        let mut line = None;
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
                        coming = Some(Plan::default());
                        line = self.reports.all(&sender).await.then_some(sender);
                    }
                    Some(PlanEvent::Disconnected) => {
                        coming = None;
                        line = None;
                    }
                    Some(PlanEvent::Change(change)) => {
                        if self.change(change, &mut coming) {
                            write_at.get_or_insert_with(|| Instant::now() + WRITE_DEBOUNCE);
                        }
                    }
                },
                () = written => {
                    write_at = None;
                    self.write_down().await;
                }
                () = self.reports.wait(), if line.is_some() => {
                    if let Some(sender) = line.take() {
                        line = self.reports.changes(&sender).await.then_some(sender);
                    }
                }
            }
        }
        if write_at.is_some() {
            self.write_down().await;
        }
    }

    /// Takes a change in; whether the plan that holds is another by it.
    fn change(&self, change: DriverChange, coming: &mut Option<Plan>) -> bool {
        let Some(change) = change.change else { return false };
        let synced = matches!(change, Change::Synced(_));
        let plan = match coming {
            Some(plan) => {
                plan.apply(change);
                if !synced {
                    return false;
                }
                info!(
                    datasets = plan.datasets.len(),
                    pools = plan.pools.len(),
                    "has the whole plan"
                );
                coming.take().unwrap_or_default()
            }
            None => {
                let mut plan = (*self.store.now()).clone();
                plan.apply(change);
                plan
            }
        };
        self.store.set(plan)
    }

    async fn write_down(&self) {
        let store = Arc::clone(&self.store);
        if let Err(error) = tokio::task::spawn_blocking(move || store.write_down()).await {
            warn!(%error, "failed to write the plan to the disk");
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
        store.write_down();
        let again = PlanStore::open(file.clone()).now();
        assert_eq!(*again, plan);
        assert_eq!(again.datasets.len(), 1, "a uid that is a path is none");
        assert!(again.named("a", "b").is_some());
        std::fs::write(&file, b"millpond plan 1\n\xff\xff").unwrap();
        assert!(!PlanStore::open(file).now().synced);
    }
}
