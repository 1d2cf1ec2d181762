//! Finds the pods that use a Dataset: those that have mounted it, by the drivers' reports, and those that name it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Volume};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use millpond_api::{Dataset, names};
use moka::future::Cache;

use super::{Context, Error};
use crate::error::ApiError;
use crate::ttl_cache;

/// Datasets that are deleted together are often of one namespace: its pods are listed once for all of them. A pod that is
/// created within this time counts as created just after the deletion of its Dataset.
const POD_LIST_TTL: Duration = Duration::from_secs(1);

/// Lists the pods of namespaces.
#[derive(Clone)]
pub(crate) struct PodLister {
    client: Client,
    listed: Cache<String, Arc<[PodUse]>>,
}

/// A pod that has not ended, and those of its volumes that may be Datasets.
#[derive(Debug)]
struct PodUse {
    name: String,
    /// Claims of its own namespace.
    claims: Vec<String>,
    /// Datasets that inline volumes name, with or without their namespace.
    datasets: Vec<String>,
}

impl PodLister {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            listed: ttl_cache::new(POD_LIST_TTL),
        }
    }

    async fn list(&self, namespace: &str) -> Result<Arc<[PodUse]>, Arc<kube::Error>> {
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let listed = async {
            let pods = api.list(&ListParams::default()).await?;
            Ok(pods.items.iter().filter_map(PodUse::new).collect())
        };
        self.listed.try_get_with(namespace.to_owned(), listed).await
    }
}

impl PodUse {
    fn new(pod: &Pod) -> Option<Self> {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            return None;
        }
        let volumes = pod.spec.as_ref()?.volumes.as_deref()?;
        let claims: Vec<_> = volumes.iter().filter_map(claim).collect();
        let datasets: Vec<_> = volumes.iter().filter_map(inline).collect();
        (!claims.is_empty() || !datasets.is_empty()).then(|| Self {
            name: pod.name_any(),
            claims,
            datasets,
        })
    }

    /// Returns whether this pod of `namespace` uses a Dataset of namespace `own`.
    fn uses(&self, dataset: &Dataset, own: &str, namespace: &str) -> bool {
        let (name, is_own) = (dataset.name_any(), own == namespace);
        let full = format!("{own}/{name}");
        (is_own && (self.claims.contains(&names::claim(dataset)) || self.datasets.contains(&name)))
            || self.datasets.contains(&full)
    }
}

fn claim(volume: &Volume) -> Option<String> {
    Some(volume.persistent_volume_claim.as_ref()?.claim_name.clone())
}

fn inline(volume: &Volume) -> Option<String> {
    let csi = volume
        .csi
        .as_ref()
        .filter(|csi| csi.driver == names::CSI_DRIVER)?;
    csi.volume_attributes.as_ref()?.get("dataset").cloned()
}

/// Returns the pods that use a Dataset, as namespace/name.
pub(super) async fn pods(dataset: &Dataset, uid: &str, context: &Context) -> Result<BTreeSet<String>, Error> {
    let own = dataset.namespace().ok_or(Error::Incomplete("namespace"))?;
    let mut pods = context.node_reports.pods(uid);
    let shared = dataset
        .spec
        .shared_with
        .as_ref()
        .map(|shared| shared.namespaces.as_slice())
        .unwrap_or_default();
    for namespace in std::iter::once(&own).chain(shared) {
        let listed = context
            .pods
            .list(namespace)
            .await
            .map_err(ApiError::during("list the pods that may use a Dataset"))?;
        let using = listed.iter().filter(|pod| pod.uses(dataset, &own, namespace));
        pods.extend(using.map(|pod| format!("{namespace}/{}", pod.name)));
    }
    Ok(pods)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dataset() -> Dataset {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "millpond.io/v1alpha1", "kind": "Dataset", "metadata": {"name": "d", "namespace": "team"},
            "spec": {"mounts": [{"mountPoint": "s3://b"}]}
        }))
        .unwrap()
    }

    fn pod(phase: &str, volume: &serde_json::Value) -> Option<PodUse> {
        let pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p"}, "spec": {"containers": [], "volumes": [volume]}, "status": {"phase": phase}
        }));
        PodUse::new(&pod.unwrap())
    }

    #[test]
    fn a_pod_uses_a_dataset_by_its_claim_or_by_an_inline_volume() {
        let inline = |driver: &str, dataset: &str| serde_json::json!({"name": "v", "csi": {"driver": driver, "volumeAttributes": {"dataset": dataset}}});
        let claim =
            |name: &str| serde_json::json!({"name": "v", "persistentVolumeClaim": {"claimName": name}});
        for (volume, in_own, in_other) in [
            (claim("d"), true, false),
            (claim("e"), false, false),
            (inline("csi.millpond.io", "d"), true, false),
            (inline("csi.millpond.io", "team/d"), true, true),
            (inline("csi.millpond.io", "other/d"), false, false),
            (inline("csi.example.com", "d"), false, false),
        ] {
            let uses = |namespace: &str| {
                pod("Running", &volume).is_some_and(|pod| pod.uses(&dataset(), "team", namespace))
            };
            assert_eq!((uses("team"), uses("other")), (in_own, in_other), "{volume}");
        }
    }

    #[test]
    fn a_pod_that_has_ended_uses_nothing() {
        let volume = serde_json::json!({"name": "v", "persistentVolumeClaim": {"claimName": "d"}});
        assert!(pod("Pending", &volume).is_some());
        assert!(pod("Succeeded", &volume).is_none());
        assert!(pod("Failed", &volume).is_none());
    }
}
