//! The end of a Dataset: refused while pods use it, without a trace afterwards.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use millpond_api::condition::{ConditionUpdate, Status, kind, reason};
use millpond_api::{Dataset, names};
use tracing::info;

use super::apply::is_owned;
use super::{Context, Error, apply, pod_use, status};
use crate::events;

/// Pods are looked at again: nothing tells that the last one is gone that had not mounted the Dataset yet.
const POD_POLL_INTERVAL: Duration = Duration::from_secs(5);

/// What is waited for besides is told by watches and reports; this is for what they have missed.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

pub(super) async fn delete(dataset: &Dataset, uid: &str, context: &Context) -> Result<Action, Error> {
    if !dataset
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == names::FINALIZER)
    {
        return Ok(Action::await_change());
    }
    let namespace = dataset.namespace().ok_or(Error::Incomplete("namespace"))?;
    if context.book.removes(uid) {
        if is_going(dataset, uid, &namespace, context) {
            return Ok(Action::requeue(LOOK_AGAIN));
        }
    } else {
        let pods = pod_use::pods(dataset, uid, context).await?;
        if !pods.is_empty() {
            set_deletion_blocked(dataset, pods.into_iter().collect(), context).await?;
            return Ok(Action::requeue(POD_POLL_INTERVAL));
        }
        // What drivers have mounted is known only when they have had time to say so.
        if !context.fleet.startup_grace_over(status::STARTUP_GRACE) {
            return Ok(Action::requeue(POD_POLL_INTERVAL));
        }
    }
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.cluster.client.clone(), &namespace);
    let volumes: Api<PersistentVolume> = Api::all(context.cluster.client.clone());
    let claim = delete_ours(&claims, &names::claim(dataset), |claim| is_owned(claim, dataset)).await?;
    context.book.remove_load(uid);
    context.book.remove_dataset(uid);
    let volume = names::volume(dataset).ok_or(Error::Incomplete("uid"))?;
    let (managed_by, manager) = names::LABEL_MANAGED_BY;
    let ours = |volume: &PersistentVolume| {
        volume
            .labels()
            .get(managed_by)
            .is_some_and(|value| value == manager)
    };
    let volume = delete_ours(&volumes, &volume, ours).await?;
    let nodes = context.fleet.present(uid);
    if claim || volume || !nodes.is_empty() {
        return Ok(Action::requeue(LOOK_AGAIN));
    }
    match apply::remove_finalizer(dataset, context).await {
        // It is gone already.
        Err(Error::Api { source, .. }) if matches!(&*source, kube::Error::Api(status) if status.code == 404) =>
            {}
        other => other?,
    }
    context.book.forget_removed(uid);
    context.places.lock().remove(uid);
    context.written.lock().remove(uid);
    info!(name = dataset.name_any(), namespace, uid, "removed a Dataset");
    Ok(Action::await_change())
}

/// Whether something of it that was told to go is still there.
fn is_going(dataset: &Dataset, uid: &str, namespace: &str, context: &Context) -> bool {
    fn ends<K: Resource>(object: Option<Arc<K>>) -> bool {
        object.is_some_and(|object| object.meta().deletion_timestamp.is_some())
    }
    let claim = ObjectRef::new(&names::claim(dataset)).within(namespace);
    let volume = ObjectRef::new(&names::volume(dataset).unwrap_or_default());
    ends(context.cluster.claims.get(&claim))
        || ends(context.cluster.volumes.get(&volume))
        || !context.fleet.present(uid).is_empty()
}

/// Deletes an object if it is ours; whether it is still there.
async fn delete_ours<K>(api: &Api<K>, name: &str, is_ours: impl Fn(&K) -> bool) -> Result<bool, Error>
where
    K: Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let Some(found) = api.get_opt(name).await.map_err(Error::api("look at an object"))? else {
        return Ok(false);
    };
    if !is_ours(&found) {
        return Ok(false);
    }
    if found.meta().deletion_timestamp.is_none() {
        match api.delete(name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(false),
            Err(error) => return Err(Error::api("delete an object")(error)),
        }
    }
    Ok(true)
}

async fn set_deletion_blocked(dataset: &Dataset, pods: Vec<String>, context: &Context) -> Result<(), Error> {
    let finding = ConditionUpdate {
        kind: kind::DELETION_BLOCKED,
        status: Status::True,
        reason: reason::IN_USE,
        message: format!(
            "the Dataset is being deleted, and goes as soon as no pod uses it any more: {}",
            shown(&pods)
        ),
    };
    let before = dataset.status.clone().unwrap_or_default();
    let mut after = before.clone();
    after
        .conditions
        .retain(|condition| condition.type_ != kind::DELETION_BLOCKED);
    let now = Time(k8s_openapi::jiff::Timestamp::now());
    let found = [finding];
    after.conditions.extend(millpond_api::condition::update(
        &before.conditions,
        &found,
        dataset.metadata.generation,
        &now,
    ));
    if after == before {
        return Ok(());
    }
    let namespace = dataset.namespace().ok_or(Error::Incomplete("namespace"))?;
    let api: Api<Dataset> = Api::namespaced(context.cluster.client.clone(), &namespace);
    let patch = serde_json::json!({"status": after});
    api.patch_status(&dataset.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map_err(Error::api("write the status"))?;
    events::tell_blocked(&context.recorder, dataset, &found).await;
    Ok(())
}

fn shown(pods: &[String]) -> String {
    const SHOWN: usize = 10;
    let some = pods.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match pods.len().saturating_sub(SHOWN) {
        0 => some,
        more => format!("{some} and {more} more"),
    }
}
