//! Orders to fetch ahead: each runs beside the others until it is done, changed or withdrawn.
//!
//! A load whose run is done is reported as done when it is said again: a controller that comes back says everything
//! anew. A worker that has been restarted begins it again, and skips what is here.

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

/// How often it is looked whether the Dataset of a load is there.
const DATASET_POLL_INTERVAL: Duration = Duration::from_millis(500);

struct Load {
    order: plan::Load,
    state: watch::Receiver<plan::LoadState>,
    stop: CancellationToken,
}

/// See the module's documentation.
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

    /// Runs a load, unless it is the one that runs or has run.
    pub(super) fn put(&self, order: plan::Load) {
        let mut loads = self.loads.lock();
        if let Some(known) = loads.get(&order.uid) {
            if known.order == order {
                return;
            }
            known.stop.cancel();
        }
        let begun = plan::LoadState {
            uid: order.uid.clone(),
            run: order.run,
            ..plan::LoadState::default()
        };
        let (sender, state) = watch::channel(begun);
        let stop = self.stop.child_token();
        let (datasets, run) = (Arc::clone(&self.datasets), order.clone());
        let stopped = stop.clone();
        self.tasks
            .spawn(async move { stopped.run_until_cancelled(load(datasets, run, sender)).await });
        loads.insert(order.uid.clone(), Load { order, state, stop });
    }

    /// Ends a load.
    pub(super) fn remove(&self, uid: &str) {
        if let Some(load) = self.loads.lock().remove(uid) {
            load.stop.cancel();
        }
    }

    /// Ends all loads but these.
    pub(super) fn keep_only(&self, uids: &std::collections::HashSet<String>) {
        self.loads.lock().retain(|uid, load| {
            let stays = uids.contains(uid);
            if !stays {
                load.stop.cancel();
            }
            stays
        });
    }

    /// How far all of them are.
    pub(super) fn states(&self) -> Vec<plan::LoadState> {
        self.loads
            .lock()
            .values()
            .map(|load| load.state.borrow().clone())
            .collect()
    }
}

/// Loads, once the Dataset is there.
async fn load(datasets: Arc<Datasets>, order: plan::Load, state: watch::Sender<plan::LoadState>) {
    let options = LoadOptions {
        paths: order.paths,
        threads: 0,
        bandwidth_bytes_per_second: order.bandwidth_bytes_per_second,
    };
    loop {
        if let Some(served) = datasets.get(&order.dataset_uid) {
            let (progress, mut shown) = watch::channel(LoadProgress::default());
            let loading = served.dataset.load(options.clone(), &progress);
            let showing = async {
                while shown.changed().await.is_ok() {
                    let progress = shown.borrow_and_update().clone();
                    state.send_modify(|state| write(state, &progress));
                }
            };
            let ended = tokio::select! {
                ended = loading => ended,
                () = showing => return,
            };
            match ended {
                Ok(progress) => {
                    state.send_modify(|state| write(state, &progress));
                    return;
                }
                // It comes: the controller says the Dataset before its loads.
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
