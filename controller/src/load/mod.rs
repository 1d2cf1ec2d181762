//! DataLoads: runs that prefetch a Dataset, and their progress.
//!
//! The steps are those of a Dataset. A run is identified by its start time, which is in the status: a controller that takes
//! over continues it, and a worker that restarts begins it again and skips what is cached. The totals are those of all
//! workers of the pool.

mod build;
mod dereference;
mod progress;
mod schedule;
mod validate;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::api::DeleteParams;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use millpond_api::{DataLoad, DataLoadStatus, LoadPolicy};
use parking_lot::Mutex;

use crate::dataset::Context as DatasetContext;
use crate::error::ApiError;
use crate::{events, status};
use build::{PlanChange, Prepared};

/// Between two attempts after an error.
const ERROR_RETRY_DELAY: Duration = Duration::from_secs(5);

/// Why a step failed. Mistakes in a spec are no errors: they become conditions.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server refused a request or could not be reached.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The API server returned an object without a field that it always sets.
    #[error("the DataLoad has no {0}")]
    Incomplete(&'static str),
}

/// What the reconciler works with: that of the Datasets, and the loads by their uid.
pub(crate) struct Context {
    pub(crate) common: Arc<DatasetContext>,
    pub(crate) refs: Mutex<HashMap<String, ObjectRef<DataLoad>>>,
}

/// Reconciles a load with its spec and the reports.
pub(crate) async fn reconcile(load: Arc<DataLoad>, context: Arc<Context>) -> Result<Action, Error> {
    let timer = context.common.metrics.start_timer("DataLoad");
    let uid = load.uid().ok_or(Error::Incomplete("uid"))?;
    if !context.common.serves(load.metadata.namespace.as_deref()) {
        context.common.plan.mark_reconciled(&uid);
        return Ok(Action::await_change());
    }
    context
        .refs
        .lock()
        .insert(uid.clone(), ObjectRef::from_obj(&*load));
    let result = if load.metadata.deletion_timestamp.is_some() {
        context.common.plan.remove_load(&uid);
        Ok(Action::await_change())
    } else {
        reconcile_present(&load, &uid, &context.common).await
    };
    context.common.plan.mark_reconciled(&uid);
    timer.stop(result.is_ok());
    result
}

async fn reconcile_present(load: &DataLoad, uid: &str, context: &DatasetContext) -> Result<Action, Error> {
    let namespace = load.namespace().ok_or(Error::Incomplete("namespace"))?;
    let now = Timestamp::now();
    let target = dereference::dereference(load, uid, &namespace, context);
    let validated = validate::validate(load, &target, now);
    let Prepared {
        plan,
        status: after,
        condition,
        action,
    } = build::build(load, uid, validated, now);
    apply(uid, plan, context);
    let before = load.status.clone().unwrap_or_default();
    let api: Api<DataLoad> = Api::namespaced(context.cluster.client.clone(), &namespace);
    if after != before {
        status::write(&api, load, &after).await?;
        let conditions = [condition];
        events::publish_condition_events(&context.recorder, load, &before.conditions, &conditions).await;
    }
    match expires_in(load, &after, now) {
        Some(Duration::ZERO) => delete_expired(load, &api).await,
        Some(left) => Ok(Action::requeue(left)),
        None => Ok(action),
    }
}

fn apply(uid: &str, plan: PlanChange, context: &DatasetContext) {
    match plan {
        PlanChange::Put { pool, load } => context.plan.put_load(&pool, load),
        PlanChange::Remove => context.plan.remove_load(uid),
        PlanChange::Unchanged => {}
    }
}

/// Returns the time until a finished load is to be deleted; `None` where it never is.
fn expires_in(load: &DataLoad, status: &DataLoadStatus, now: Timestamp) -> Option<Duration> {
    let (Some(ttl), Some(finished), LoadPolicy::Once) = (
        load.spec.ttl_seconds_after_finished,
        &status.finished_at,
        load.spec.policy,
    ) else {
        return None;
    };
    let expires = finished.0.as_second().saturating_add(ttl);
    let left = expires.saturating_sub(now.as_second());
    Some(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
}

async fn delete_expired(load: &DataLoad, api: &Api<DataLoad>) -> Result<Action, Error> {
    let deleted = api.delete(&load.name_any(), &DeleteParams::default()).await;
    match deleted.map_err(ApiError::during("delete an expired load")) {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(Action::await_change()),
    }
}

/// Requeues a load whose reconciliation failed.
#[expect(clippy::needless_pass_by_value, reason = "the signature is the runtime's")]
pub(crate) fn after_error(load: Arc<DataLoad>, error: &Error, _context: Arc<Context>) -> Action {
    let (name, namespace) = (load.name_any(), load.namespace().unwrap_or_default());
    tracing::warn!(
        name,
        namespace,
        error = millpond_process::with_causes(error),
        "failed to reconcile a DataLoad; retrying in {} s",
        ERROR_RETRY_DELAY.as_secs()
    );
    Action::requeue(ERROR_RETRY_DELAY)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn only_a_finished_load_that_runs_once_expires() {
        let at = |second| Timestamp::from_second(second).unwrap();
        for (spec, finished, now, expected) in [
            (serde_json::json!({"dataset": "d"}), Some(100), 200, None),
            (
                serde_json::json!({"dataset": "d", "ttlSecondsAfterFinished": 60}),
                None,
                200,
                None,
            ),
            (
                serde_json::json!({"dataset": "d", "ttlSecondsAfterFinished": 60}),
                Some(100),
                130,
                Some(30),
            ),
            (
                serde_json::json!({"dataset": "d", "ttlSecondsAfterFinished": 60}),
                Some(100),
                160,
                Some(0),
            ),
            (
                serde_json::json!({"dataset": "d", "ttlSecondsAfterFinished": 60}),
                Some(100),
                900,
                Some(0),
            ),
            (
                serde_json::json!({
                    "dataset": "d", "policy": "Cron", "schedule": "0 3 * * *", "ttlSecondsAfterFinished": 60
                }),
                Some(100),
                900,
                None,
            ),
        ] {
            let load: DataLoad = serde_json::from_value(serde_json::json!({
                "apiVersion": "millpond.io/v1alpha1", "kind": "DataLoad", "metadata": {"name": "l"}, "spec": spec
            }))
            .unwrap();
            let status = DataLoadStatus {
                finished_at: finished.map(|finished| Time(at(finished))),
                ..DataLoadStatus::default()
            };
            let left = expires_in(&load, &status, at(now));
            assert_eq!(
                left,
                expected.map(Duration::from_secs),
                "{spec} {finished:?} {now}"
            );
        }
    }
}
