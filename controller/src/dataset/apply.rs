//! Puts what was built into the plan and the API server. An object of a needed name that Millpond does not manage is left
//! alone and reported.
//!
//! Order: the finalizer before anything that it guards; the plan before the objects, since workers list while the claim is
//! created; the claim immediately, its volume with the first catalog.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use millpond_api::{Dataset, names};
use moka::future::Cache;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::build::{PlanEntry, PrefetchLoad, Prepared};
use super::{Context, Error};
use crate::error::ApiError;
use crate::ttl_cache;

/// Annotation of a claim whose volume has been bound to it.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";

/// By this time after its creation the watch has shown an object.
const WATCH_LAG_TTL: Duration = Duration::from_secs(5);

/// Objects that were created and that no watch has shown yet, by the Dataset's uid: they are not created again.
#[derive(Clone)]
pub(crate) struct RecentlyCreated {
    claims: Cache<String, Arc<PersistentVolumeClaim>>,
    volumes: Cache<String, ()>,
}

impl RecentlyCreated {
    pub(crate) fn new() -> Self {
        Self {
            claims: ttl_cache::new(WATCH_LAG_TTL),
            volumes: ttl_cache::new(WATCH_LAG_TTL),
        }
    }
}

/// What has come of [`Prepared`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Applied {
    /// The object, as `Kind name`, that has a needed name and is not managed by Millpond.
    pub(super) name_conflict: Option<String>,
    /// Whether pods can use the Dataset's claim.
    pub(super) is_bound: bool,
}

/// Applies everything, in the order of the module's documentation.
pub(super) async fn apply(
    dataset: &Dataset,
    uid: &str,
    prepared: Prepared,
    context: &Context,
) -> Result<Applied, Error> {
    let Prepared { plan, claim, volume } = prepared;
    ensure_finalizer(dataset, uid, context).await?;
    if let Some(entry) = plan {
        apply_plan(uid, entry, context);
    }
    let name_conflict = match apply_claim(dataset, uid, &claim, context).await? {
        Some(claim) => apply_volume(uid, &claim, volume, context).await?,
        None => Some(format!("PersistentVolumeClaim {}", claim.name_any())),
    };
    Ok(Applied {
        name_conflict,
        is_bound: is_bound(dataset, context),
    })
}

/// Ensures the finalizer: owner references reach neither the volume, which is cluster-scoped, nor the bytes on nodes.
///
/// Applied rather than written, since the watch often shows an older version than this controller's last write. The patch
/// names the uid: the API server refuses it for a Dataset that was deleted meanwhile, instead of creating it again.
async fn ensure_finalizer(dataset: &Dataset, uid: &str, context: &Context) -> Result<(), Error> {
    if has_finalizer(dataset) {
        return Ok(());
    }
    let patch = serde_json::json!({
        "apiVersion": Dataset::api_version(&()), "kind": Dataset::kind(&()),
        "metadata": {"name": dataset.name_any(), "uid": uid, "finalizers": [names::FINALIZER]}
    });
    datasets(dataset, context)?
        .patch(
            &dataset.name_any(),
            &PatchParams::apply(names::MANAGER),
            &Patch::Apply(patch),
        )
        .await
        .map_err(ApiError::during("set the finalizer"))?;
    Ok(())
}

/// Returns whether a Dataset has the finalizer.
pub(super) fn has_finalizer(dataset: &Dataset) -> bool {
    dataset
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == names::FINALIZER)
}

/// Removes the finalizer, if the Dataset has still the version that was read.
pub(super) async fn remove_finalizer(dataset: &Dataset, context: &Context) -> Result<(), Error> {
    let others = dataset.finalizers().iter();
    let others: Vec<_> = others
        .filter(|finalizer| *finalizer != names::FINALIZER)
        .collect();
    let patch = serde_json::json!({
        "metadata": {"finalizers": others, "resourceVersion": dataset.resource_version()}
    });
    datasets(dataset, context)?
        .patch(&dataset.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map_err(ApiError::during("remove the finalizer"))?;
    Ok(())
}

/// Returns the API of the Datasets of a Dataset's namespace.
pub(super) fn datasets(dataset: &Dataset, context: &Context) -> Result<Api<Dataset>, Error> {
    let namespace = dataset.namespace().ok_or(Error::Incomplete("namespace"))?;
    Ok(Api::namespaced(context.cluster.client.clone(), &namespace))
}

fn apply_plan(uid: &str, entry: PlanEntry, context: &Context) {
    let PlanEntry { dataset, prefetch } = entry;
    let pool = dataset.pool.clone();
    context.plan.put_dataset(uid, dataset);
    match prefetch {
        PrefetchLoad::Put(load) => context.plan.put_load(&pool, load),
        PrefetchLoad::Remove => context.plan.remove_load(uid),
        PrefetchLoad::Unchanged => {}
    }
}

/// Creates the claim, unless it exists. Returns it as it is in the API server; `None` if its name is taken.
async fn apply_claim(
    dataset: &Dataset,
    uid: &str,
    claim: &PersistentVolumeClaim,
    context: &Context,
) -> Result<Option<Arc<PersistentVolumeClaim>>, Error> {
    let namespace = dataset.namespace().ok_or(Error::Incomplete("namespace"))?;
    let recent = &context.recently_created.claims;
    let known = ObjectRef::new(&claim.name_any()).within(&namespace);
    if let Some(known) = context.cluster.claims.get(&known)
        && is_owned(&*known, dataset)
    {
        recent.invalidate(uid).await;
        return Ok(Some(known));
    }
    if let Some(unseen) = recent.get(uid).await {
        return Ok(Some(unseen));
    }
    let claims = Api::namespaced(context.cluster.client.clone(), &namespace);
    let Some(created) = create_if_absent(&claims, claim, |found| is_owned(found, dataset)).await? else {
        return Ok(None);
    };
    let created = Arc::new(created);
    recent.insert(uid.to_owned(), Arc::clone(&created)).await;
    Ok(Some(created))
}

/// Creates the volume for a claim, unless it exists, or moves the binding on by one step. Returns the volume, as
/// `Kind name`, if its name is taken.
///
/// Kubernetes' binder inspects a claim when that changes, and otherwise every 15 seconds. A claim that is older than its
/// volume would wait for that, so it is changed as soon as the volume's phase shows that the binder knows the volume.
async fn apply_volume(
    uid: &str,
    claim: &PersistentVolumeClaim,
    volume: Option<PersistentVolume>,
    context: &Context,
) -> Result<Option<String>, Error> {
    let Some(mut volume) = volume else {
        return Ok(None);
    };
    let client = &context.cluster.client;
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let recent = &context.recently_created.volumes;
    match context.cluster.volumes.get(&ObjectRef::new(&volume.name_any())) {
        Some(known) if is_bound_to(&known, claim) => trigger_binder(client, claim).await?,
        // The claim that it was bound to was deleted, and another one created.
        Some(known) if !is_claimed_by(&known, claim) => {
            let patch = serde_json::json!({"spec": {"claimRef": claim.object_ref(&())}});
            volumes
                .patch(&known.name_any(), &PatchParams::default(), &Patch::Merge(patch))
                .await
                .map_err(ApiError::during("bind the volume to its claim"))?;
        }
        Some(_awaits_the_binder) => {}
        None if recent.contains_key(uid) => {}
        None => {
            if let Some(spec) = &mut volume.spec {
                spec.claim_ref = Some(claim.object_ref(&()));
            }
            // Its name contains the Dataset's uid, so that its labels are proof enough.
            let is_managed = |found: &PersistentVolume| found.labels() == volume.labels();
            if create_if_absent(&volumes, &volume, is_managed).await?.is_none() {
                return Ok(Some(format!("PersistentVolume {}", volume.name_any())));
            }
            recent.insert(uid.to_owned(), ()).await;
        }
    }
    Ok(None)
}

fn is_claimed_by(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let claim_ref = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    claim_ref.is_some_and(|claim_ref| claim_ref.uid == claim.metadata.uid)
}

/// Returns whether the binder knows a volume and that it belongs to this claim.
fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Bound") && is_claimed_by(volume, claim)
}

/// Annotates a claim as bound to its volume, so that the binder inspects it now.
async fn trigger_binder(client: &kube::Client, claim: &PersistentVolumeClaim) -> Result<(), Error> {
    if claim.annotations().contains_key(BIND_COMPLETED) {
        return Ok(());
    }
    let namespace = claim.namespace().ok_or(Error::Incomplete("namespace"))?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    let patch = serde_json::json!({
        "metadata": {"uid": claim.metadata.uid, "annotations": {BIND_COMPLETED: "yes"}}
    });
    claims
        .patch(&claim.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map_err(ApiError::during("bind the claim"))?;
    Ok(())
}

fn is_bound(dataset: &Dataset, context: &Context) -> bool {
    let known = ObjectRef::new(&names::claim(dataset)).within(&dataset.namespace().unwrap_or_default());
    let claim = context.cluster.claims.get(&known);
    let phase = claim.and_then(|claim| claim.status.as_ref()?.phase.clone());
    phase.as_deref() == Some("Bound")
}

/// Returns whether a Dataset is the controlling owner of an object.
pub(super) fn is_owned<K: Resource>(object: &K, dataset: &Dataset) -> bool {
    let owners = object.owner_references().iter();
    let mut owners = owners.filter(|owner| owner.controller == Some(true));
    owners.any(|owner| dataset.metadata.uid.as_deref() == Some(&owner.uid))
}

/// Creates an object unless it exists. Returns it as it is in the API server; `None` where the existing one is not managed
/// by Millpond.
async fn create_if_absent<K>(
    api: &Api<K>,
    object: &K,
    is_managed: impl Fn(&K) -> bool,
) -> Result<Option<K>, Error>
where
    K: Resource + Clone + Debug + Serialize + DeserializeOwned,
{
    match api.create(&PostParams::default(), object).await {
        Ok(created) => Ok(Some(created)),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let found = api.get_opt(&object.name_any()).await;
            let found = found.map_err(ApiError::during("read an object"))?;
            Ok(found.filter(is_managed))
        }
        Err(error) => Err(ApiError::during("create an object")(error).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(uid: &str) -> PersistentVolumeClaim {
        serde_json::from_value(serde_json::json!({"metadata": {"name": "d", "uid": uid}})).unwrap()
    }

    fn volume(claim: Option<&str>, phase: &str) -> PersistentVolume {
        let claim_ref = claim.map(|uid| serde_json::json!({"uid": uid}));
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "millpond-u"}, "spec": {"claimRef": claim_ref}, "status": {"phase": phase}
        }))
        .unwrap()
    }

    #[test]
    fn a_volume_belongs_to_the_claim_whose_uid_it_names() {
        for (named, phase, is_claimed, is_bound) in [
            (None, "Available", false, false),
            (Some("old"), "Released", false, false),
            (Some("new"), "Available", true, false),
            (Some("new"), "Bound", true, true),
            (Some("old"), "Bound", false, false),
        ] {
            let (volume, claim) = (volume(named, phase), claim("new"));
            assert_eq!(is_claimed_by(&volume, &claim), is_claimed, "{named:?} {phase}");
            assert_eq!(is_bound_to(&volume, &claim), is_bound, "{named:?} {phase}");
        }
    }

    #[test]
    fn a_claim_is_owned_by_its_controlling_owner_alone() {
        let dataset: Dataset = serde_json::from_value(serde_json::json!({
            "apiVersion": "millpond.io/v1alpha1", "kind": "Dataset", "metadata": {"name": "d", "uid": "u"},
            "spec": {"mounts": [{"mountPoint": "s3://b"}]}
        }))
        .unwrap();
        let owned = |owner: serde_json::Value| {
            let claim: PersistentVolumeClaim =
                serde_json::from_value(serde_json::json!({"metadata": {"ownerReferences": [owner]}}))
                    .unwrap();
            is_owned(&claim, &dataset)
        };
        let owner = |uid: &str, controller: bool| {
            serde_json::json!({
                "apiVersion": "millpond.io/v1alpha1", "kind": "Dataset", "name": "d", "uid": uid, "controller": controller
            })
        };
        assert!(owned(owner("u", true)));
        assert!(!owned(owner("u", false)));
        assert!(!owned(owner("other", true)));
    }
}
