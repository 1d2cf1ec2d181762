//! Which pods use a Dataset: those that have it mounted, by the drivers' reports, and those that are about to.

use std::collections::BTreeSet;

use api::{Dataset, names};
use k8s_openapi::api::core::v1::{Pod, Volume};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::{Context, Error};

/// The pods, as namespace/name.
pub(super) async fn pods(dataset: &Dataset, uid: &str, context: &Context) -> Result<BTreeSet<String>, Error> {
    let own = dataset.namespace().ok_or(Error::Incomplete("namespace"))?;
    let mut pods = context.fleet.pods(uid);
    let shared = dataset
        .spec
        .shared_with
        .as_ref()
        .map(|shared| shared.namespaces.as_slice())
        .unwrap_or_default();
    for namespace in std::iter::once(&own).chain(shared) {
        let listed = Api::<Pod>::namespaced(context.cluster.client.clone(), namespace)
            .list(&ListParams::default())
            .await
            .map_err(Error::api("list the pods that may use it"))?;
        let using = listed
            .items
            .iter()
            .filter(|pod| is_alive(pod) && uses(pod, dataset, &own));
        pods.extend(using.map(|pod| format!("{namespace}/{}", pod.name_any())));
    }
    Ok(pods)
}

fn is_alive(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

fn uses(pod: &Pod, dataset: &Dataset, own: &str) -> bool {
    let in_own = pod.namespace().as_deref() == Some(own);
    let volumes = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.volumes.as_deref())
        .unwrap_or_default();
    volumes
        .iter()
        .any(|volume| names_it(volume, dataset, own, in_own))
}

fn names_it(volume: &Volume, dataset: &Dataset, own: &str, in_own: bool) -> bool {
    let name = dataset.name_any();
    if let Some(claim) = &volume.persistent_volume_claim {
        return in_own && claim.claim_name == names::claim(dataset);
    }
    let Some(csi) = volume.csi.as_ref().filter(|csi| csi.driver == names::CSI_DRIVER) else {
        return false;
    };
    let named = csi
        .volume_attributes
        .as_ref()
        .and_then(|attributes| attributes.get("dataset"));
    named.is_some_and(|named| (in_own && *named == name) || *named == format!("{own}/{name}"))
}
