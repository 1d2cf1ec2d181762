//! What the cluster alone takes for the objects of many Datasets: a plain client makes them, with nothing of Millpond.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

use crate::many::{MAX_CONCURRENT_REQUESTS, TIMEOUT, client, sorted_times};
use crate::{Namespace, World};

/// On volumes: the namespace of the claim.
const LABEL: &str = "by-hand";

/// A plain client of the cluster.
struct Hand {
    configs: Api<ConfigMap>,
    claims: Api<PersistentVolumeClaim>,
    volumes: Api<PersistentVolume>,
    namespace: String,
}

/// Makes a `ConfigMap`, a claim and a volume of each name, bound to each other as those of Datasets are; in the order of
/// their times, how long each claim took from the first request to the watch's word that it is Bound. Removes the volumes,
/// which are in no namespace.
///
/// # Errors
/// One cannot be made, or is not Bound after a long time.
pub fn bind_by_hand(world: &World, namespace: &Namespace, names: &[String]) -> Result<Vec<Duration>> {
    let (runtime, client) = client(world)?;
    let hand = Hand::new(&client, namespace.name());
    runtime.block_on(async {
        let patient = tokio::time::timeout(TIMEOUT, hand.bind(names));
        let times = patient.await.context("claims are not Bound after a long time");
        let ours = ListParams::default().labels(&format!("{LABEL}={}", hand.namespace));
        hand.claims
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await?;
        hand.volumes
            .delete_collection(&DeleteParams::default(), &ours)
            .await?;
        times?
    })
}

impl Hand {
    fn new(client: &Client, namespace: &str) -> Self {
        Self {
            configs: Api::namespaced(client.clone(), namespace),
            claims: Api::namespaced(client.clone(), namespace),
            volumes: Api::all(client.clone()),
            namespace: namespace.to_owned(),
        }
    }

    async fn bind(&self, names: &[String]) -> Result<Vec<Duration>> {
        let making = futures::stream::iter(names)
            .map(|name| self.make(name))
            .buffer_unordered(MAX_CONCURRENT_REQUESTS)
            .try_collect::<BTreeMap<_, _>>();
        let (begun, (), ended) =
            tokio::try_join!(making, self.tell_claims(names.len()), self.bound(names.len()))?;
        sorted_times(&begun, &ended)
    }

    async fn make(&self, name: &str) -> Result<(String, Instant)> {
        let begun = Instant::now();
        let params = PostParams::default();
        let config =
            serde_json::from_value(json!({"metadata": {"name": name}, "data": {"what": "a Dataset"}}))?;
        self.configs.create(&params, &config).await?;
        let volume = format!("{}-{name}", self.namespace);
        let common = json!({"accessModes": ["ReadOnlyMany"], "storageClassName": ""});
        let mut claim = json!({"metadata": {"name": name}, "spec": common});
        claim["spec"]["volumeName"] = json!(volume);
        claim["spec"]["resources"] = json!({"requests": {"storage": "1"}});
        let claim = self
            .claims
            .create(&params, &serde_json::from_value(claim)?)
            .await?;
        let labels = json!({LABEL: self.namespace});
        let mut made = json!({"metadata": {"name": volume, "labels": labels}, "spec": common});
        made["spec"]["claimRef"] = serde_json::to_value(claim.object_ref(&()))?;
        made["spec"]["capacity"] = json!({"storage": "10000"});
        made["spec"]["persistentVolumeReclaimPolicy"] = json!("Retain");
        made["spec"]["csi"] =
            json!({"driver": "by-hand.example.com", "volumeHandle": volume, "readOnly": true});
        self.volumes
            .create(&params, &serde_json::from_value(made)?)
            .await?;
        Ok((name.to_owned(), begun))
    }

    /// Changes each claim whose volume is Bound, so that the binder looks at it now.
    async fn tell_claims(&self, count: usize) -> Result<()> {
        let ours = watcher::Config::default().labels(&format!("{LABEL}={}", self.namespace));
        let bound = watcher(self.volumes.clone(), ours)
            .applied_objects()
            .try_filter_map(|volume| async move {
                let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
                let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
                let claim = claim.and_then(|claim| claim.name.clone());
                Ok(claim.filter(|_| phase == Some("Bound")))
            });
        let patch = json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}});
        bound
            .take(count)
            .map_err(anyhow::Error::from)
            .try_for_each_concurrent(MAX_CONCURRENT_REQUESTS, async |name| {
                let merge = Patch::Merge(&patch);
                self.claims.patch(&name, &PatchParams::default(), &merge).await?;
                Ok(())
            })
            .await
    }

    /// When each claim was Bound, until there are `count` of them.
    async fn bound(&self, count: usize) -> Result<BTreeMap<String, Instant>> {
        let events = watcher(self.claims.clone(), watcher::Config::default()).applied_objects();
        let mut events = std::pin::pin!(events);
        let mut bound = BTreeMap::new();
        while bound.len() < count {
            let claim = events.next().await.context("the watch ended")??;
            let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
            if phase == Some("Bound") {
                bound.entry(claim.name_any()).or_insert_with(Instant::now);
            }
        }
        Ok(bound)
    }
}
