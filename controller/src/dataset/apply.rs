//! Makes a Dataset's objects real. What somebody else made under one of their names is left alone, and said.

use std::fmt::Debug;

use api::{Dataset, Prefetch, names};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use protocol::plan;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Context, Error};

/// What a Dataset has in the API.
pub(super) struct Objects {
    pub(super) claim: PersistentVolumeClaim,
    /// From the first catalog on.
    pub(super) volume: Option<PersistentVolume>,
}

/// Sees to the finalizer: the volume is cluster-scoped, and bytes are on nodes, so owner references do not reach them.
pub(super) async fn take_in_charge(dataset: &Dataset, context: &Context) -> Result<(), Error> {
    if dataset
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == names::FINALIZER)
    {
        return Ok(());
    }
    let mut finalizers = dataset.finalizers().to_vec();
    finalizers.push(names::FINALIZER.to_owned());
    set_finalizers(dataset, &finalizers, context).await
}

/// Writes the finalizers, if the Dataset is still the one that was read.
pub(super) async fn set_finalizers(
    dataset: &Dataset,
    finalizers: &[String],
    context: &Context,
) -> Result<(), Error> {
    let namespace = dataset.namespace().ok_or(Error::Incomplete("namespace"))?;
    let api: Api<Dataset> = Api::namespaced(context.cluster.client.clone(), &namespace);
    let patch = serde_json::json!({
        "metadata": {"finalizers": finalizers, "resourceVersion": dataset.resource_version()}
    });
    api.patch(&dataset.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map_err(Error::api("set the finalizer"))?;
    Ok(())
}

/// Makes the objects; the names that are somebody else's.
pub(super) async fn apply(
    dataset: &Dataset,
    objects: Objects,
    context: &Context,
) -> Result<Vec<String>, Error> {
    let Objects { claim, volume } = objects;
    let namespace = dataset.namespace().ok_or(Error::Incomplete("namespace"))?;
    let client = &context.cluster.client;
    let mut taken = Vec::new();
    let known = ObjectRef::new(&claim.name_any()).within(&namespace);
    if context
        .cluster
        .claims
        .get(&known)
        .is_none_or(|known| !is_owned(&*known, dataset))
    {
        let api = Api::namespaced(client.clone(), &namespace);
        if !make(&api, &claim, |found| is_owned(found, dataset)).await? {
            taken.push(format!("PersistentVolumeClaim {}", claim.name_any()));
        }
    }
    if let Some(volume) = volume
        && context
            .cluster
            .volumes
            .get(&ObjectRef::new(&volume.name_any()))
            .is_none()
    {
        let api = Api::all(client.clone());
        // Its name has the Dataset's uid in it.
        if !make(&api, &volume, |found: &PersistentVolume| {
            found.labels() == volume.labels()
        })
        .await?
        {
            taken.push(format!("PersistentVolume {}", volume.name_any()));
        }
    }
    Ok(taken)
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

/// Makes an object unless it is there; whether the one that is there then is ours.
async fn make<K>(api: &Api<K>, object: &K, is_ours: impl Fn(&K) -> bool) -> Result<bool, Error>
where
    K: Resource + Clone + Debug + Serialize + DeserializeOwned,
{
    match api.create(&PostParams::default(), object).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let found = api
                .get_opt(&object.name_any())
                .await
                .map_err(Error::api("look at an object"))?;
            Ok(found.is_some_and(|found| is_ours(&found)))
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
