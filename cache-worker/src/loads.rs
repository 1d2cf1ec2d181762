//! DataLoads on this node: each runs concurrently with the others until it is done, changed or removed.
//!
//! A finished load is reported as done when the plan puts it again: a reconnected controller sends everything again. A
//! restarted worker runs it again, and skips cached files.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use millpond_wire::plan;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::service::Datasets;
use millpond_cache::dataset::{LoadError, LoadOptions, LoadProgress};

/// Interval of checks whether a load's Dataset is open.
const DATASET_POLL_INTERVAL: Duration = Duration::from_millis(500);

struct Load {
    load: plan::Load,
    state: watch::Receiver<plan::LoadState>,
    stop: CancellationToken,
}

/// Loads of this worker, by uid.
pub(super) struct Loads {
    datasets: Arc<Datasets>,
    loads: Mutex<HashMap<String, Load>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Loads {
    pub(super) fn new(datasets: Arc<Datasets>, tasks: TaskTracker, stop: CancellationToken) -> Self {
        Self {
            datasets,
            loads: Mutex::default(),
            tasks,
            stop,
        }
    }

    /// Runs a load, unless the same is running or done.
    pub(super) fn put(&self, load: plan::Load) {
        let mut loads = self.loads.lock();
        if let Some(known) = loads.get(&load.uid) {
            if known.load == load {
                return;
            }
            known.stop.cancel();
        }
        let initial = plan::LoadState {
            uid: load.uid.clone(),
            run: load.run,
            ..plan::LoadState::default()
        };
        let (sender, state) = watch::channel(initial);
        let stop = self.stop.child_token();
        let (datasets, run) = (Arc::clone(&self.datasets), load.clone());
        let stopped = stop.clone();
        self.tasks
            .spawn(async move { stopped.run_until_cancelled(run_load(datasets, run, sender)).await });
        loads.insert(load.uid.clone(), Load { load, state, stop });
    }

    /// Cancels a load.
    pub(super) fn remove(&self, uid: &str) {
        if let Some(load) = self.loads.lock().remove(uid) {
            load.stop.cancel();
        }
    }

    /// Cancels all loads but these.
    pub(super) fn retain(&self, uids: &std::collections::HashSet<String>) {
        self.loads.lock().retain(|uid, load| {
            let stays = uids.contains(uid);
            if !stays {
                load.stop.cancel();
            }
            stays
        });
    }

    /// Returns the states of all loads.
    pub(super) fn states(&self) -> Vec<plan::LoadState> {
        self.loads
            .lock()
            .values()
            .map(|load| load.state.borrow().clone())
            .collect()
    }
}

/// Runs a load once its Dataset is open.
async fn run_load(datasets: Arc<Datasets>, load: plan::Load, state: watch::Sender<plan::LoadState>) {
    let options = LoadOptions {
        paths: load.paths,
        threads: 0,
        bandwidth_bytes_per_second: load.bandwidth_bytes_per_second,
    };
    loop {
        if let Some(served) = datasets.get(&load.dataset_uid) {
            let (progress, mut updates) = watch::channel(LoadProgress::default());
            let run = served.dataset.load(options.clone(), &progress);
            let report = async {
                while updates.changed().await.is_ok() {
                    let progress = updates.borrow_and_update().clone();
                    state.send_modify(|state| write(state, &progress));
                }
            };
            let ended = tokio::select! {
                ended = run => ended,
                () = report => return,
            };
            match ended {
                Ok(progress) => {
                    state.send_modify(|state| write(state, &progress));
                    return;
                }
                // It will be opened: the controller sends the Dataset before its loads.
                Err(LoadError::NoCatalog) => {}
                Err(error) => {
                    state.send_modify(|state| {
                        state.error = error.to_string();
                        state.finished = true;
                    });
                    return;
                }
            }
        }
        tokio::time::sleep(DATASET_POLL_INTERVAL).await;
    }
}

fn write(state: &mut plan::LoadState, progress: &LoadProgress) {
    state.files_total = progress.files_total;
    state.bytes_total = progress.bytes_total;
    state.counted = progress.counted;
    state.files_done = progress.files_done;
    state.bytes_done = progress.bytes_done;
    state.bytes_fetched = progress.bytes_fetched;
    state.files_failed = progress.failed;
    let failures = progress.failed_samples.iter().map(|sample| {
        let (path, reason) = sample.split_once(": ").unwrap_or((sample, ""));
        plan::FailedFile {
            path: path.to_owned(),
            reason: reason.to_owned(),
        }
    });
    state.failures = failures.collect();
    state.finished = progress.finished;
}
