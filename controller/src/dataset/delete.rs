//! Deletes a Dataset: blocked while pods use it; afterwards nothing of it is left in the cluster or on nodes.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::DeleteParams;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use millpond_api::condition::{ConditionUpdate, Status, kind, reason};
use millpond_api::{Dataset, DatasetStatus, names};
use tracing::info;

use super::apply::{datasets, has_finalizer, is_owned, remove_finalizer};
use super::{Context, Error, pod_use, status};
use crate::error::ApiError;
use crate::events;

/// Pods are polled: no watch shows when the last pod has ended that had not mounted the Dataset yet.
const POD_POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Watches and reports show everything else that a deletion waits for; this is for changes that they have missed.
const REQUEUE_INTERVAL: Duration = Duration::from_secs(15);

/// Pods that the condition names.
const MAX_NAMED_PODS: usize = 10;

pub(super) async fn delete(dataset: &Dataset, uid: &str, context: &Context) -> Result<Action, Error> {
    if !has_finalizer(dataset) {
        return Ok(Action::await_change());
    }
    let namespace = dataset.namespace().ok_or(Error::Incomplete("namespace"))?;
    if context.plan.removes(uid) {
        if is_removal_pending(dataset, uid, &namespace, context) {
            return Ok(Action::requeue(REQUEUE_INTERVAL));
        }
    } else {
        let pods = pod_use::pods(dataset, uid, context).await?;
        if !pods.is_empty() {
            let pods: Vec<_> = pods.into_iter().collect();
            set_deletion_blocked(dataset, &pods, context).await?;
            return Ok(Action::requeue(POD_POLL_INTERVAL));
        }
        // What drivers have mounted is known only when all of them have had time to report.
        if !context.node_reports.startup_grace_over(status::STARTUP_GRACE) {
            return Ok(Action::requeue(POD_POLL_INTERVAL));
        }
    }
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.cluster.client.clone(), &namespace);
    let volumes: Api<PersistentVolume> = Api::all(context.cluster.client.clone());
    let has_claim = delete_managed(&claims, &names::claim(dataset), |claim| is_owned(claim, dataset)).await?;
    context.plan.remove_load(uid);
    context.plan.remove_dataset(uid);
    let volume = names::volume(dataset).ok_or(Error::Incomplete("uid"))?;
    let (managed_by, manager) = names::LABEL_MANAGED_BY;
    let is_managed = |volume: &PersistentVolume| {
        let label = volume.labels().get(managed_by);
        label.is_some_and(|value| value == manager)
    };
    let has_volume = delete_managed(&volumes, &volume, is_managed).await?;
    if has_claim || has_volume || !context.node_reports.present(uid).is_empty() {
        return Ok(Action::requeue(REQUEUE_INTERVAL));
    }
    match remove_finalizer(dataset, context).await {
        // The API server has deleted it already.
        Err(Error::Api(error)) if error.is_not_found() => {}
        other => other?,
    }
    context.plan.forget_removed(uid);
    context.refs.lock().remove(uid);
    context.last_statuses.lock().remove(uid);
    info!(name = dataset.name_any(), namespace, uid, "deleted a Dataset");
    Ok(Action::await_change())
}

/// Returns whether something whose deletion was requested still exists.
fn is_removal_pending(dataset: &Dataset, uid: &str, namespace: &str, context: &Context) -> bool {
    fn is_terminating<K: Resource>(object: Option<Arc<K>>) -> bool {
        object.is_some_and(|object| object.meta().deletion_timestamp.is_some())
    }
    let claim = ObjectRef::new(&names::claim(dataset)).within(namespace);
    let volume = ObjectRef::new(&names::volume(dataset).unwrap_or_default());
    is_terminating(context.cluster.claims.get(&claim))
        || is_terminating(context.cluster.volumes.get(&volume))
        || !context.node_reports.present(uid).is_empty()
}

/// Deletes an object if Millpond manages it. Returns whether it still exists.
async fn delete_managed<K>(api: &Api<K>, name: &str, is_managed: impl Fn(&K) -> bool) -> Result<bool, Error>
where
    K: Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let found = api.get_opt(name).await;
    let Some(found) = found.map_err(ApiError::during("read an object"))? else {
        return Ok(false);
    };
    if !is_managed(&found) {
        return Ok(false);
    }
    if found.meta().deletion_timestamp.is_none() {
        let deleted = api.delete(name, &DeleteParams::default()).await;
        match deleted.map_err(ApiError::during("delete an object")) {
            Ok(_) => {}
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

async fn set_deletion_blocked(dataset: &Dataset, pods: &[String], context: &Context) -> Result<(), Error> {
    let before = dataset.status.clone().unwrap_or_default();
    let now = Time(k8s_openapi::jiff::Timestamp::now());
    let update = blocked(pods);
    let after = with_condition(&before, &update, dataset.metadata.generation, &now);
    if after == before {
        return Ok(());
    }
    crate::status::write(&datasets(dataset, context)?, dataset, &after).await?;
    events::publish_warning(&context.recorder, dataset, &update).await;
    Ok(())
}

fn blocked(pods: &[String]) -> ConditionUpdate {
    ConditionUpdate {
        kind: kind::DELETION_BLOCKED,
        status: Status::True,
        reason: reason::IN_USE,
        message: format!("deletion waits for pods that use the Dataset: {}", listed(pods)),
    }
}

/// Returns a status with one condition set and all others as they are.
fn with_condition(
    before: &DatasetStatus,
    update: &ConditionUpdate,
    generation: Option<i64>,
    now: &Time,
) -> DatasetStatus {
    let mut after = before.clone();
    after
        .conditions
        .retain(|condition| condition.type_ != update.kind);
    let updates = std::slice::from_ref(update);
    after.conditions.extend(millpond_api::condition::update(
        &before.conditions,
        updates,
        generation,
        now,
    ));
    after
}

fn listed(pods: &[String]) -> String {
    let some = pods.iter().take(MAX_NAMED_PODS).cloned().collect::<Vec<_>>();
    let some = some.join(", ");
    match pods.len().saturating_sub(MAX_NAMED_PODS) {
        0 => some,
        more => format!("{some} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn the_condition_names_ten_pods_and_counts_the_others() {
        let pods: Vec<_> = (0..12).map(|pod| format!("team/p{pod}")).collect();
        assert!(
            blocked(&pods[..1])
                .message
                .ends_with("that use the Dataset: team/p0")
        );
        assert!(blocked(&pods).message.ends_with("team/p9 and 2 more"));
    }

    #[test]
    fn a_blocked_deletion_leaves_the_other_conditions_and_is_written_once() {
        let mut status = DatasetStatus::default();
        let ready = ConditionUpdate {
            kind: kind::READY,
            status: Status::True,
            reason: reason::AS_EXPECTED,
            message: String::new(),
        };
        status.conditions = millpond_api::condition::update(&[], &[ready], Some(1), &at(1));
        let update = blocked(&["team/p".to_owned()]);
        let blocked = with_condition(&status, &update, Some(1), &at(2));
        assert_eq!(blocked.conditions[0], status.conditions[0]);
        assert_eq!(blocked.conditions[1].type_, kind::DELETION_BLOCKED);
        assert_eq!(with_condition(&blocked, &update, Some(1), &at(3)), blocked);
    }
}
