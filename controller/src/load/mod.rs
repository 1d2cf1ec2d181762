//! DataLoads: orders to fetch ahead, and how far they are.
//!
//! A run is known by the time at which it began, which is in the status: a controller that comes back goes on with it, and
//! a worker that comes back begins it again and skips what is here. The totals are those of all workers of the pool.

mod progress;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use millpond_api::condition::{ConditionUpdate, Status, kind, reason, update};
use millpond_api::{DataLoad, DataLoadStatus, Dataset, LoadPhase, LoadPolicy, names};
use millpond_wire::plan;

use crate::dataset::{Context as DatasetContext, Error};
use crate::events;

/// While it runs its progress is written at most so often.
const PROGRESS_WRITE_INTERVAL: Duration = Duration::from_secs(2);

/// What a load waits for is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// What the reconciler works with: that of the Datasets, and where loads are by their uid.
pub(crate) struct Context {
    pub(crate) common: Arc<DatasetContext>,
    pub(crate) places: parking_lot::Mutex<std::collections::HashMap<String, ObjectRef<DataLoad>>>,
}

/// Makes a load what it is to be.
pub(crate) async fn reconcile(load: Arc<DataLoad>, context: Arc<Context>) -> Result<Action, Error> {
    let timer = context.common.metrics.begin("DataLoad");
    let uid = load.uid().ok_or(Error::Incomplete("uid"))?;
    if !context.common.serves(load.metadata.namespace.as_deref()) {
        context.common.book.mark_reconciled(&uid);
        return Ok(Action::await_change());
    }
    context
        .places
        .lock()
        .insert(uid.clone(), ObjectRef::from_obj(&*load));
    let result = keep(&load, &uid, &context.common).await;
    context.common.book.mark_reconciled(&uid);
    timer.end(result.is_ok());
    result
}

async fn keep(load: &DataLoad, uid: &str, context: &DatasetContext) -> Result<Action, Error> {
    let namespace = load.namespace().ok_or(Error::Incomplete("namespace"))?;
    if load.metadata.deletion_timestamp.is_some() {
        context.book.remove_load(uid);
        return Ok(Action::await_change());
    }
    let before = load.status.clone().unwrap_or_default();
    let now = Timestamp::now();
    let dataset = context
        .cluster
        .datasets
        .get(&ObjectRef::new(&load.spec.dataset).within(&namespace));
    let next = step(load, uid, &before, dataset.as_deref(), now, context);
    let LoadStep {
        mut status,
        finding,
        action,
    } = next;
    status.observed_generation = load.metadata.generation;
    status.conditions = update(
        &before.conditions,
        std::slice::from_ref(&finding),
        load.metadata.generation,
        &Time(now),
    );
    if status != before {
        let api: Api<DataLoad> = Api::namespaced(context.cluster.client.clone(), &namespace);
        let patch = serde_json::json!({
            "apiVersion": "millpond.io/v1alpha1", "kind": "DataLoad", "metadata": {"name": load.name_any()}, "status": status
        });
        api.patch_status(
            &load.name_any(),
            &PatchParams::apply(names::MANAGER).force(),
            &Patch::Apply(patch),
        )
        .await
        .map_err(Error::api("write the status"))?;
        events::publish_condition_events(
            &context.recorder,
            load,
            &before.conditions,
            std::slice::from_ref(&finding),
        )
        .await;
    }
    expire(load, &status, now, context)
        .await
        .map(|expires| expires.unwrap_or(action))
}

/// What a load is next.
struct LoadStep {
    status: DataLoadStatus,
    finding: ConditionUpdate,
    action: Action,
}

fn step(
    load: &DataLoad,
    uid: &str,
    before: &DataLoadStatus,
    dataset: Option<&Dataset>,
    now: Timestamp,
    context: &DatasetContext,
) -> LoadStep {
    let mut status = before.clone();
    let finding = |status, reason, message: String| ConditionUpdate {
        kind: kind::COMPLETE,
        status,
        reason,
        message,
    };
    let wait = |mut status: DataLoadStatus, phase, finding, action| {
        status.phase = Some(phase);
        LoadStep {
            status,
            finding,
            action,
        }
    };
    let name = &load.spec.dataset;
    let Some(dataset) = dataset else {
        context.book.remove_load(uid);
        let message = format!("spec.dataset: there is no Dataset {name:?} in this namespace: make it");
        let finding = finding(Status::False, reason::DATASET_NOT_FOUND, message);
        return wait(status, LoadPhase::Pending, finding, Action::requeue(LOOK_AGAIN));
    };
    let is_ready = dataset
        .status
        .as_ref()
        .is_some_and(|status| status.catalog_generation.is_some());
    let planned = dataset.uid().and_then(|uid| context.book.dataset(&uid));
    let Some(planned) = planned.filter(|_| is_ready) else {
        let message = format!("Dataset {name:?} is not ready: see its conditions");
        let finding = finding(Status::False, reason::DATASET_NOT_READY, message);
        return wait(status, LoadPhase::Pending, finding, Action::requeue(LOOK_AGAIN));
    };
    if let Err(problem) = progress::check(&load.spec.paths) {
        context.book.remove_load(uid);
        let finding = finding(Status::False, reason::INVALID_GLOB, problem);
        return wait(status, LoadPhase::Failed, finding, Action::await_change());
    }
    let is_over = before.finished_at.is_some() && before.observed_generation == load.metadata.generation;
    if load.spec.policy == LoadPolicy::Cron {
        let next = match schedule::next(load.spec.schedule.as_deref().unwrap_or_default(), now) {
            Ok(next) => next,
            Err(problem) => {
                context.book.remove_load(uid);
                let finding = finding(Status::False, reason::INVALID_SCHEDULE, problem);
                return wait(status, LoadPhase::Failed, finding, Action::await_change());
            }
        };
        let due = before.next_run_at.as_ref().is_some_and(|due| due.0 <= now);
        let is_running = before.started_at.is_some() && before.finished_at.is_none();
        if due && !is_running {
            progress::begin(&mut status, now);
        }
        status.next_run_at = Some(Time(next));
        if !due && !is_running {
            let finding = finding(Status::False, reason::AS_EXPECTED, format!("runs next at {next}"));
            let until = next
                .duration_since(now)
                .unsigned_abs()
                .min(Duration::from_secs(600));
            let phase = LoadPhase::Waiting;
            return wait(
                status,
                phase,
                finding,
                Action::requeue(until.max(Duration::from_secs(1))),
            );
        }
    } else if status.started_at.is_none() || (before.finished_at.is_some() && !is_over) {
        progress::begin(&mut status, now);
    } else if is_over {
        let finding = progress::finding(&status);
        return LoadStep {
            status,
            finding,
            action: Action::await_change(),
        };
    }
    let run = status
        .started_at
        .as_ref()
        .map_or(0, |began| u64::try_from(began.0.as_second()).unwrap_or(0));
    let workers = context.fleet.workers(&planned.pool).max(1) as u64;
    context.book.put_load(
        &planned.pool,
        plan::Load {
            uid: uid.to_owned(),
            dataset_uid: dataset.uid().unwrap_or_default(),
            run,
            paths: load.spec.paths.clone(),
            bandwidth_bytes_per_second: load.spec.bandwidth_limit.map(|limit| (limit.0 / workers).max(1)),
        },
    );
    progress::take(&mut status, &context.fleet.load(uid, &planned.pool), run, now);
    let is_over = status.finished_at.is_some();
    if is_over {
        context.book.remove_load(uid);
    }
    let action = match is_over {
        true if load.spec.policy == LoadPolicy::Once => Action::await_change(),
        true => Action::requeue(Duration::from_secs(1)),
        false => Action::requeue(PROGRESS_WRITE_INTERVAL),
    };
    LoadStep {
        finding: progress::finding(&status),
        status,
        action,
    }
}

/// Deletes a load whose time is over; when it will be, if it is done.
async fn expire(
    load: &DataLoad,
    status: &DataLoadStatus,
    now: Timestamp,
    context: &DatasetContext,
) -> Result<Option<Action>, Error> {
    let (Some(keep), Some(finished), LoadPolicy::Once) = (
        load.spec.ttl_seconds_after_finished,
        &status.finished_at,
        load.spec.policy,
    ) else {
        return Ok(None);
    };
    let left = finished
        .0
        .as_second()
        .saturating_add(keep)
        .saturating_sub(now.as_second());
    if left > 0 {
        return Ok(Some(Action::requeue(Duration::from_secs(
            u64::try_from(left).unwrap_or(0),
        ))));
    }
    let namespace = load.namespace().ok_or(Error::Incomplete("namespace"))?;
    let api: Api<DataLoad> = Api::namespaced(context.cluster.client.clone(), &namespace);
    match api.delete(&load.name_any(), &DeleteParams::default()).await {
        Ok(_) => Ok(Some(Action::await_change())),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Some(Action::await_change())),
        Err(error) => Err(Error::api("delete a load whose time is over")(error)),
    }
}

/// After an error: again, not too soon.
#[expect(clippy::needless_pass_by_value, reason = "the signature is the runtime's")]
pub(crate) fn after_error(load: Arc<DataLoad>, error: &Error, _context: Arc<Context>) -> Action {
    let (name, namespace) = (load.name_any(), load.namespace().unwrap_or_default());
    tracing::warn!(
        name,
        namespace,
        error = millpond_process::with_causes(error),
        "failed to reconcile a DataLoad"
    );
    Action::requeue(Duration::from_secs(5))
}
