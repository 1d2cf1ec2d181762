//! One Dataset of the plan, from its opening to its removal.
//!
//! Its task opens it, lists its sources if it has no catalog, applies the changes of its plan, and retries after failures:
//! an unreachable source, a tier that cannot be opened. It serves as soon as it is open: objects cached by a previous
//! worker are available without the source.

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

/// Backoff of retries: short enough to list a recovered source soon, long enough not to overload it with a wrong name.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Problem of a Dataset's plan or tier; the Dataset itself reports problems of its sources.
pub(super) type Problems = Arc<Mutex<Vec<plan::Problem>>>;

/// Handle of a Dataset's task.
pub(super) struct DatasetHandle {
    plan: watch::Sender<plan::Dataset>,
    problems: Problems,
    datasets: Arc<Datasets>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl DatasetHandle {
    /// Starts the task of a Dataset.
    pub(super) fn start(plan: plan::Dataset, context: Arc<WorkerContext>, datasets: Arc<Datasets>) -> Self {
        let (sender, receiver) = watch::channel(plan);
        let (problems, stop) = (Problems::default(), CancellationToken::new());
        let dataset_task = DatasetTask {
            plan: receiver,
            context,
            datasets: Arc::clone(&datasets),
            problems: Arc::clone(&problems),
            stop: stop.clone(),
        };
        #[expect(clippy::disallowed_methods, reason = "joined by `stop`")]
        let task = tokio::spawn(dataset_task.run());
        Self {
            plan: sender,
            problems,
            datasets,
            stop,
            task,
        }
    }

    /// Passes a changed plan to the task.
    pub(super) fn change(&self, plan: plan::Dataset) {
        self.plan.send_if_modified(|known| {
            let changed = *known != plan;
            *known = plan;
            changed
        });
    }

    /// Returns the Dataset's problems.
    pub(super) fn problems(&self) -> Vec<plan::Problem> {
        let problems = self.problems.lock().clone();
        let plan = self.plan.borrow();
        let served = self.datasets.get(&plan.uid).filter(|_| problems.is_empty());
        match served.and_then(|served| served.dataset.refresh_error()) {
            Some(error) => vec![of_listing(&plan, &error)],
            None => problems,
        }
    }

    /// Stops the task and closes the Dataset; cached objects stay.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            warn!(%error, "a Dataset's task panicked");
        }
    }
}

struct DatasetTask {
    plan: watch::Receiver<plan::Dataset>,
    context: Arc<WorkerContext>,
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
        let (uid, context) = (self.plan.borrow().uid.clone(), Arc::clone(&self.context));
        self.datasets.put(uid.clone(), served.clone());
        stop.run_until_cancelled(async {
            tokio::join!(
                self.follow(&served.dataset),
                served.drivers.run(),
                notify_of_catalogs(&served.dataset, &context.news)
            );
        })
        .await;
        self.datasets.remove(&uid);
        served.drivers.stop();
        served.dataset.stop().await;
    }

    /// Opens the Dataset, retrying until it succeeds.
    async fn open(&mut self) -> ServedDataset {
        let mut delays = millpond_process::backoff(BACKOFF_MIN, BACKOFF_MAX);
        loop {
            let plan = self.plan.borrow_and_update().clone();
            let drivers = Arc::new(Drivers::default());
            match self.context.open(&plan, Arc::clone(&drivers)).await {
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
                        "failed to open a Dataset; retrying"
                    );
                    *self.problems.lock() = vec![problem];
                    self.context.news.notify_one();
                }
            }
            self.wait(delays.next()).await;
        }
    }

    /// Lists until there is a catalog, then applies changes of the plan. Ends only by being dropped.
    async fn follow(&mut self, dataset: &Arc<Dataset>) {
        let mut delays = millpond_process::backoff(BACKOFF_MIN, BACKOFF_MAX);
        let mut applied = self.plan.borrow_and_update().clone();
        while let Err(error) = dataset.start().await {
            warn!(
                dataset = applied.name,
                namespace = applied.namespace,
                error = error.describe(),
                "failed to list a Dataset's sources; retrying"
            );
            self.context.news.notify_one();
            self.wait(delays.next()).await;
            applied = self.apply(dataset, applied).await;
        }
        loop {
            if self.plan.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let is_requested = self.plan.borrow().refresh_request != applied.refresh_request;
            applied = self.apply(dataset, applied).await;
            if is_requested {
                match dataset.refresh().await {
                    Ok(refreshed) => info!(generation = %refreshed.generation, "listed on request"),
                    Err(error) => warn!(error = error.describe(), "failed to list on request"),
                }
            }
        }
    }

    /// Applies the plan to the Dataset.
    async fn apply(&mut self, dataset: &Arc<Dataset>, applied: plan::Dataset) -> plan::Dataset {
        let plan = self.plan.borrow_and_update().clone();
        if plan != applied {
            let result = self.context.reconfigure(dataset, &plan).await;
            *self.problems.lock() = result.err().into_iter().collect();
        }
        plan
    }

    /// Waits for `delay`, or until the plan changes, which may fix the problem.
    async fn wait(&mut self, delay: Option<Duration>) {
        // After the plan's sender is dropped this task is stopped.
        let _changed = tokio::time::timeout(delay.unwrap_or(BACKOFF_MAX), self.plan.changed()).await;
    }
}

/// Notifies of each new catalog. Ends only by being dropped.
async fn notify_of_catalogs(dataset: &Dataset, news: &Notify) {
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

/// Deletes a Dataset's directories.
///
/// # Errors
/// If something cannot be deleted.
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
