//! Which pods use a Dataset: those that have it mounted, by the drivers' reports, and those that are about to.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Volume};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use millpond_api::{Dataset, names};
use moka::future::Cache;

use super::{Context, Error};
use crate::ttl_cache;

/// Datasets that are deleted together are often of one namespace: its pods are listed once for all of them. A pod that
/// comes in this time is one that comes a moment after its Dataset was deleted.
const POD_LIST_TTL: Duration = Duration::from_secs(1);

/// Lists the pods of namespaces.
#[derive(Clone)]
pub(crate) struct Pods {
    client: Client,
    listed: Cache<String, Arc<[PodUse]>>,
}

/// A pod that lives and has volumes that may be of Datasets.
#[derive(Debug)]
struct PodUse {
    name: String,
    /// Claims of its own namespace.
    claims: Vec<String>,
    /// Datasets that inline volumes name, with or without their namespace.
    datasets: Vec<String>,
}

impl Pods {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            listed: ttl_cache::answers(POD_LIST_TTL),
        }
    }

    async fn of(&self, namespace: &str) -> Result<Arc<[PodUse]>, Arc<kube::Error>> {
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let listed = async {
            let pods = api.list(&ListParams::default()).await?;
            Ok(pods.items.iter().filter_map(PodUse::of).collect())
        };
        self.listed.try_get_with(namespace.to_owned(), listed).await
    }
}

impl PodUse {
    fn of(pod: &Pod) -> Option<Self> {
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

    /// Whether it uses a Dataset of namespace `own`, being in `namespace` itself.
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
        let listed = context
            .pods
            .of(namespace)
            .await
            .map_err(Error::api("list the pods that may use it"))?;
        let using = listed.iter().filter(|pod| pod.uses(dataset, &own, namespace));
        pods.extend(using.map(|pod| format!("{namespace}/{}", pod.name)));
    }
    Ok(pods)
}
