//! The end of a Dataset: refused while pods use it, without a trace afterwards.

use api::condition::{Finding, Status, kind, reason};
use api::{Dataset, names};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use std::time::Duration;
use tracing::info;

use super::apply::{is_owned, set_finalizers};
use super::{Context, Error, status, usage};
use crate::events;

/// Pods and nodes are looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

pub(super) async fn delete(dataset: &Dataset, uid: &str, context: &Context) -> Result<Action, Error> {
    if !dataset
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == names::FINALIZER)
    {
        return Ok(Action::await_change());
    }
    let pods = usage::pods(dataset, uid, context).await?;
    if !pods.is_empty() {
        say_blocked(dataset, pods.into_iter().collect(), context).await?;
        return Ok(Action::requeue(LOOK_AGAIN));
    }
    // What drivers have mounted is known only when they have had time to say so.
    if !context.fleet.is_settled(status::SETTLING) {
        return Ok(Action::requeue(LOOK_AGAIN));
    }
    let namespace = dataset.namespace().ok_or(Error::Incomplete("namespace"))?;
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
    if claim || volume || !nodes.is_empty() || !context.book.is_whole() {
        return Ok(Action::requeue(LOOK_AGAIN));
    }
    let rest: Vec<String> = dataset
        .finalizers()
        .iter()
        .filter(|finalizer| *finalizer != names::FINALIZER)
        .cloned()
        .collect();
    match set_finalizers(dataset, &rest, context).await {
        // It is gone already.
        Err(Error::Api { source, .. }) if matches!(&*source, kube::Error::Api(status) if status.code == 404) =>
            {}
        other => other?,
    }
    context.places.lock().remove(uid);
    context.written.lock().remove(uid);
    info!(name = dataset.name_any(), namespace, uid, "removed a Dataset");
    Ok(Action::await_change())
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

async fn say_blocked(dataset: &Dataset, pods: Vec<String>, context: &Context) -> Result<(), Error> {
    let finding = Finding {
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
    after.conditions.extend(api::condition::update(
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
