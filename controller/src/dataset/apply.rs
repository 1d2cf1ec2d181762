//! Makes a Dataset's objects real. What somebody else made under one of their names is left alone, and said.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use millpond_api::{Dataset, Prefetch, names};
use millpond_wire::plan;
use moka::future::Cache;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Context, Error};
use crate::ttl_cache;

/// On a claim: its volume has been bound to it.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";

/// The watches show what was made well before this has passed.
const WATCH_LAG_TTL: Duration = Duration::from_secs(5);

/// What was made a moment ago and no watch has shown yet, by the Dataset's uid: it is not made again.
#[derive(Clone)]
pub(crate) struct RecentlyCreated {
    claims: Cache<String, Arc<PersistentVolumeClaim>>,
    volumes: Cache<String, ()>,
}

impl RecentlyCreated {
    pub(crate) fn new() -> Self {
        Self {
            claims: ttl_cache::answers(WATCH_LAG_TTL),
            volumes: ttl_cache::answers(WATCH_LAG_TTL),
        }
    }
}

/// What a Dataset has in the API.
pub(super) struct Objects {
    pub(super) claim: PersistentVolumeClaim,
    /// From the first catalog on.
    pub(super) volume: Option<PersistentVolume>,
}

/// Sees to the finalizer: the volume is cluster-scoped, and bytes are on nodes, so owner references do not reach them.
///
/// Applied rather than written, since what the watch has shown is often older than what this controller itself wrote a
/// moment ago. An object that is gone is not made anew: the API server refuses a uid that it does not know.
pub(super) async fn ensure_finalizer(dataset: &Dataset, uid: &str, context: &Context) -> Result<(), Error> {
    if dataset
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == names::FINALIZER)
    {
        return Ok(());
    }
    let patch = serde_json::json!({
        "apiVersion": "millpond.io/v1alpha1", "kind": "Dataset",
        "metadata": {"name": dataset.name_any(), "uid": uid, "finalizers": [names::FINALIZER]}
    });
    datasets(dataset, context)?
        .patch(
            &dataset.name_any(),
            &PatchParams::apply(names::MANAGER),
            &Patch::Apply(patch),
        )
        .await
        .map_err(Error::api("set the finalizer"))?;
    Ok(())
}

/// Takes the finalizer away, if the Dataset is still the one that was read.
pub(super) async fn remove_finalizer(dataset: &Dataset, context: &Context) -> Result<(), Error> {
    let rest = dataset.finalizers().iter();
    let rest: Vec<_> = rest.filter(|finalizer| *finalizer != names::FINALIZER).collect();
    let patch = serde_json::json!({
        "metadata": {"finalizers": rest, "resourceVersion": dataset.resource_version()}
    });
    datasets(dataset, context)?
        .patch(&dataset.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map_err(Error::api("take the finalizer away"))?;
    Ok(())
}

fn datasets(dataset: &Dataset, context: &Context) -> Result<Api<Dataset>, Error> {
    let namespace = dataset.namespace().ok_or(Error::Incomplete("namespace"))?;
    Ok(Api::namespaced(context.cluster.client.clone(), &namespace))
}

/// Makes the objects; the names that are somebody else's.
///
/// The binder of volumes looks at a claim when that changes, and otherwise every 15 seconds. A claim that is there before
/// its volume would wait for that, so it is changed as soon as the binder has said that it knows the volume.
pub(super) async fn apply(
    dataset: &Dataset,
    uid: &str,
    objects: Objects,
    context: &Context,
) -> Result<Vec<String>, Error> {
    let Objects { claim, volume } = objects;
    let namespace = dataset.namespace().ok_or(Error::Incomplete("namespace"))?;
    let (cluster, made) = (&context.cluster, &context.made);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client.clone(), &namespace);
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    let known = cluster
        .claims
        .get(&ObjectRef::new(&claim.name_any()).within(&namespace));
    let claim = match known {
        Some(known) if is_owned(&*known, dataset) => {
            made.claims.invalidate(uid).await;
            known
        }
        _ => match made.claims.get(uid).await {
            Some(unseen) => unseen,
            None => match create_if_absent(&claims, &claim, |found| is_owned(found, dataset)).await? {
                Some(claim) => {
                    let claim = Arc::new(claim);
                    made.claims.insert(uid.to_owned(), Arc::clone(&claim)).await;
                    claim
                }
                None => return Ok(vec![format!("PersistentVolumeClaim {}", claim.name_any())]),
            },
        },
    };
    let Some(mut volume) = volume else {
        return Ok(Vec::new());
    };
    match cluster.volumes.get(&ObjectRef::new(&volume.name_any())) {
        Some(known) if is_bound_to(&known, &claim) => trigger_binder(&claims, &claim).await?,
        // The claim that it was bound to was deleted, and another made.
        Some(known) if !is_claimed_by(&known, &claim) => {
            let patch = serde_json::json!({"spec": {"claimRef": claim.object_ref(&())}});
            volumes
                .patch(&known.name_any(), &PatchParams::default(), &Patch::Merge(patch))
                .await
                .map_err(Error::api("bind the volume to its claim"))?;
        }
        Some(_awaits_the_binder) => {}
        None if made.volumes.contains_key(uid) => {}
        None => {
            if let Some(spec) = &mut volume.spec {
                spec.claim_ref = Some(claim.object_ref(&()));
            }
            // Its name has the Dataset's uid in it.
            let ours = |found: &PersistentVolume| found.labels() == volume.labels();
            if create_if_absent(&volumes, &volume, ours).await?.is_none() {
                return Ok(vec![format!("PersistentVolume {}", volume.name_any())]);
            }
            made.volumes.insert(uid.to_owned(), ()).await;
        }
    }
    Ok(Vec::new())
}

fn is_claimed_by(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let claimed_by = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    claimed_by.is_some_and(|claimed| claimed.uid == claim.metadata.uid)
}

/// Whether the binder has seen a volume, and that it is this claim's.
fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Bound") && is_claimed_by(volume, claim)
}

/// Says in a claim that its volume is bound to it, so that the binder looks at it now.
async fn trigger_binder(
    claims: &Api<PersistentVolumeClaim>,
    claim: &PersistentVolumeClaim,
) -> Result<(), Error> {
    if claim.annotations().contains_key(BIND_COMPLETED) {
        return Ok(());
    }
    let patch = serde_json::json!({
        "metadata": {"uid": claim.metadata.uid, "annotations": {BIND_COMPLETED: "yes"}}
    });
    claims
        .patch(&claim.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map_err(Error::api("bind the claim"))?;
    Ok(())
}

/// Whether pods can use the Dataset's claim.
pub(super) fn is_bound(dataset: &Dataset, context: &Context) -> bool {
    let known = ObjectRef::new(&names::claim(dataset)).within(&dataset.namespace().unwrap_or_default());
    let claim = context.cluster.claims.get(&known);
    let phase = claim.and_then(|claim| claim.status.as_ref()?.phase.clone());
    phase.as_deref() == Some("Bound")
}

/// Whether an object is a Dataset's own.
pub(super) fn is_owned<K: Resource>(object: &K, dataset: &Dataset) -> bool {
    let owners = object.owner_references().iter();
    let mut owners = owners.filter(|owner| owner.controller == Some(true));
    owners.any(|owner| dataset.metadata.uid.as_deref() == Some(&owner.uid))
}

/// Makes an object unless it is there; `None` where the one that is there is not ours.
async fn create_if_absent<K>(
    api: &Api<K>,
    object: &K,
    is_ours: impl Fn(&K) -> bool,
) -> Result<Option<K>, Error>
where
    K: Resource + Clone + Debug + Serialize + DeserializeOwned,
{
    match api.create(&PostParams::default(), object).await {
        Ok(made) => Ok(Some(made)),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let found = api
                .get_opt(&object.name_any())
                .await
                .map_err(Error::api("look at an object"))?;
            Ok(found.filter(|found| is_ours(found)))
        }
        Err(error) => Err(Error::api("make an object")(error)),
    }
}

/// Has everything fetched ahead, where the spec says so: a load that no DataLoad stands for.
pub(super) fn prefetch(dataset: &Dataset, uid: &str, pool: &str, has_catalog: bool, context: &Context) {
    match dataset.spec.prefetch {
        Prefetch::OnCreate if has_catalog => context.book.put_load(
            pool,
            plan::Load {
                uid: uid.to_owned(),
                dataset_uid: uid.to_owned(),
                run: 1,
                paths: Vec::new(),
                bandwidth_bytes_per_second: None,
            },
        ),
        Prefetch::OnCreate => {}
        Prefetch::Never => context.book.remove_load(uid),
    }
}
