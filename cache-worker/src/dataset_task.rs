//! One Dataset of the plan, from its opening to its removal.
//!
//! Its task opens it, sees to a first catalog, follows the changes of its plan, and tries again what failed: a source that
//! did not answer, a tier that could not be opened. It serves as soon as it is open: what was cached by a worker before
//! is there without the source.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millpond_core::Worker;
use millpond_wire::plan;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::context::{WorkerContext, of_listing};
use crate::service::{Datasets, Drivers, ServedDataset};
use millpond_cache::dataset::Dataset;

/// A source that was down is listed soon after it is back, and a wrong name does not hammer it.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// What is wrong with a Dataset's description or its tier; what is wrong with its sources the Dataset itself knows.
pub(super) type Problems = Arc<Mutex<Vec<plan::Problem>>>;

/// A Dataset of the plan.
pub(super) struct DatasetHandle {
    plan: watch::Sender<plan::Dataset>,
    problems: Problems,
    datasets: Arc<Datasets>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl DatasetHandle {
    /// Begins to keep a Dataset.
    pub(super) fn start(plan: plan::Dataset, setup: Arc<WorkerContext>, datasets: Arc<Datasets>) -> Self {
        let (sender, receiver) = watch::channel(plan);
        let (problems, stop) = (Problems::default(), CancellationToken::new());
        let keeping = DatasetTask {
            plan: receiver,
            setup,
            datasets: Arc::clone(&datasets),
            problems: Arc::clone(&problems),
            stop: stop.clone(),
        };
        #[expect(clippy::disallowed_methods, reason = "joined by `stop`")]
        let task = tokio::spawn(keeping.run());
        Self {
            plan: sender,
            problems,
            datasets,
            stop,
            task,
        }
    }

    /// Takes a change of its plan.
    pub(super) fn change(&self, plan: plan::Dataset) {
        self.plan.send_if_modified(|known| {
            let changed = *known != plan;
            *known = plan;
            changed
        });
    }

    /// What is wrong with it.
    pub(super) fn problems(&self) -> Vec<plan::Problem> {
        let problems = self.problems.lock().clone();
        let plan = self.plan.borrow();
        let served = self.datasets.get(&plan.uid).filter(|_| problems.is_empty());
        match served.and_then(|served| served.dataset.refresh_error()) {
            Some(error) => vec![of_listing(&plan, &error)],
            None => problems,
        }
    }

    /// Ends it; what is cached stays.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            warn!(%error, "a Dataset's task panicked");
        }
    }
}

struct DatasetTask {
    plan: watch::Receiver<plan::Dataset>,
    setup: Arc<WorkerContext>,
    datasets: Arc<Datasets>,
    problems: Problems,
    stop: CancellationToken,
}

impl DatasetTask {
    async fn run(mut self) {
        let stop = self.stop.clone();
        let Some(served) = stop.run_until_cancelled(self.open()).await else {
            return;
        };
        let (uid, setup) = (self.plan.borrow().uid.clone(), Arc::clone(&self.setup));
        self.datasets.put(uid.clone(), served.clone());
        stop.run_until_cancelled(async {
            tokio::join!(
                self.follow(&served.dataset),
                served.drivers.run(),
                tell_of_catalogs(&served.dataset, &setup.news)
            );
        })
        .await;
        self.datasets.remove(&uid);
        served.drivers.stop();
        served.dataset.stop().await;
    }

    /// Opens it, as soon as that is possible.
    async fn open(&mut self) -> ServedDataset {
        let mut delays = millpond_process::backoff(BACKOFF_MIN, BACKOFF_MAX);
        loop {
            let plan = self.plan.borrow_and_update().clone();
            let drivers = Arc::new(Drivers::default());
            match self.setup.open(&plan, Arc::clone(&drivers)).await {
                Ok(dataset) => {
                    drivers.connect(&dataset);
                    self.problems.lock().clear();
                    return ServedDataset { dataset, drivers };
                }
                Err(problem) => {
                    warn!(
                        dataset = plan.name,
                        namespace = plan.namespace,
                        reason = problem.message,
                        "failed to open a Dataset"
                    );
                    *self.problems.lock() = vec![problem];
                    self.setup.news.notify_one();
                }
            }
            self.pause(delays.next()).await;
        }
    }

    /// Sees to a catalog, and then does what changes of the plan ask for. Ends only by being dropped.
    async fn follow(&mut self, dataset: &Arc<Dataset>) {
        let mut delays = millpond_process::backoff(BACKOFF_MIN, BACKOFF_MAX);
        let mut applied = self.plan.borrow_and_update().clone();
        while let Err(error) = dataset.start().await {
            warn!(
                dataset = applied.name,
                namespace = applied.namespace,
                error = error.describe(),
                "failed to list a Dataset's sources"
            );
            self.setup.news.notify_one();
            self.pause(delays.next()).await;
            applied = self.apply(dataset, applied).await;
        }
        loop {
            if self.plan.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let asked = self.plan.borrow().refresh_request != applied.refresh_request;
            applied = self.apply(dataset, applied).await;
            if asked {
                match dataset.refresh().await {
                    Ok(refreshed) => info!(generation = %refreshed.generation, "listed on request"),
                    Err(error) => warn!(error = error.describe(), "failed to list on request"),
                }
            }
        }
    }

    /// Makes the Dataset what its plan says.
    async fn apply(&mut self, dataset: &Arc<Dataset>, applied: plan::Dataset) -> plan::Dataset {
        let plan = self.plan.borrow_and_update().clone();
        if plan != applied {
            let result = self.setup.reconfigure(dataset, &plan).await;
            *self.problems.lock() = result.err().into_iter().collect();
        }
        plan
    }

    /// Waits, but not for long when the plan changes: the change may be the cure.
    async fn pause(&mut self, pause: Option<Duration>) {
        // An ended plan ends this task by its stop.
        let _changed = tokio::time::timeout(pause.unwrap_or(BACKOFF_MAX), self.plan.changed()).await;
    }
}

/// Has each new catalog reported. Ends only by being dropped.
async fn tell_of_catalogs(dataset: &Dataset, news: &Notify) {
    let mut catalogs = dataset.catalogs();
    loop {
        if catalogs.borrow_and_update().is_some() {
            news.notify_one();
        }
        if catalogs.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Deletes all that there is of a Dataset in these directories.
///
/// # Errors
/// Something stays.
pub(super) async fn remove(directories: Vec<PathBuf>) -> std::io::Result<()> {
    let removed = tokio::task::spawn_blocking(move || {
        for directory in directories {
            match std::fs::remove_dir_all(&directory) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    });
    removed.await?
}
