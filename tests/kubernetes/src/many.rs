//! Many Datasets created at the same moment, and when each is Bound, as a watch of the API server sees it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Config, ResourceExt};
use millpond_api::DatasetPhase;
use serde_json::json;

use crate::{Namespace, World};

/// Concurrent requests.
pub(crate) const MAX_CONCURRENT_REQUESTS: usize = 32;

/// A guard, never a measure.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(600);

/// Creates Datasets of a bucket in a namespace that has its Secret; in the order of their times, how long each took from the
/// request to the watch's word that it is Bound.
///
/// # Errors
/// One cannot be created, or is not Bound after a long time.
pub fn create_many(
    world: &World,
    namespace: &Namespace,
    bucket: &str,
    names: &[String],
) -> Result<Vec<Duration>> {
    let manifests = names.iter().map(|name| {
        let options = json!({"endpoint": world.s3.url(), "region": "us-east-1", "allow_http": "true"});
        let mount = json!({
            "mountPoint": format!("s3://{bucket}"), "options": options, "secretRef": {"name": "source"},
        });
        let dataset = json!({
            "apiVersion": "millpond.io/v1alpha1", "kind": "Dataset",
            "metadata": {"name": name}, "spec": {"mounts": [mount]},
        });
        Ok(serde_json::from_value(dataset)?)
    });
    let manifests = manifests.collect::<Result<Vec<millpond_api::Dataset>>>()?;
    let (runtime, client) = client(world)?;
    let api: Api<millpond_api::Dataset> = Api::namespaced(client, namespace.name());
    runtime.block_on(async {
        let watched = watch(api.clone(), names.len());
        let creating = futures::stream::iter(manifests)
            .map(|dataset| {
                let api = api.clone();
                async move {
                    let begun = Instant::now();
                    api.create(&PostParams::default(), &dataset).await?;
                    Ok::<_, kube::Error>((dataset.name_any(), begun))
                }
            })
            .buffer_unordered(MAX_CONCURRENT_REQUESTS)
            .try_collect::<BTreeMap<_, _>>();
        let (bound, begun) = tokio::join!(watched, creating);
        sorted_times(&begun?, &bound?)
    })
}

/// How long each took from its beginning to its end, both by name; in the order of the times.
///
/// # Errors
/// One has no end.
pub(crate) fn sorted_times(
    begun: &BTreeMap<String, Instant>,
    ended: &BTreeMap<String, Instant>,
) -> Result<Vec<Duration>> {
    let times = begun.iter().map(|(name, begun)| {
        let end = ended.get(name).with_context(|| format!("{name} was not seen"))?;
        Ok(end.saturating_duration_since(*begun))
    });
    let mut times = times.collect::<Result<Vec<_>>>()?;
    times.sort();
    Ok(times)
}

/// Deletes all Datasets of a namespace by one request, which kubectl does by one for each; does not wait until they are deleted.
///
/// # Errors
/// The API server refuses.
pub fn delete_many(world: &World, namespace: &Namespace) -> Result<()> {
    let (runtime, client) = client(world)?;
    let api: Api<millpond_api::Dataset> = Api::namespaced(client, namespace.name());
    runtime.block_on(async {
        let (how, which) = (DeleteParams::default(), ListParams::default());
        api.delete_collection(&how, &which).await
    })?;
    Ok(())
}

/// When each Dataset that was not Bound at first was Bound, until there are `count` of them.
async fn watch(api: Api<millpond_api::Dataset>, count: usize) -> Result<BTreeMap<String, Instant>> {
    let events = watcher(api, watcher::Config::default()).applied_objects();
    let mut events = std::pin::pin!(events);
    let mut before = BTreeMap::new();
    let mut bound = BTreeMap::new();
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    while bound.len() < count {
        let Ok(next) = tokio::time::timeout_at(deadline, events.next()).await else {
            bail!("{} of {count} Datasets are Bound after {TIMEOUT:?}", bound.len());
        };
        let dataset = next.context("the watch ended")??;
        let name = dataset.name_any();
        let is_bound = dataset.status.and_then(|status| status.phase) == Some(DatasetPhase::Bound);
        // Those of the round before are Bound when they are first seen.
        let is_old = *before.entry(name.clone()).or_insert(is_bound);
        if is_bound && !is_old {
            bound.entry(name).or_insert_with(Instant::now);
        }
    }
    Ok(bound)
}

/// A client of the cluster's API server, and what it runs on.
pub(crate) fn client(world: &World) -> Result<(tokio::runtime::Runtime, Client)> {
    millpond_process::tls::install();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let file = Kubeconfig::read_from(world.kubectl().kubeconfig())?;
    let client = runtime.block_on(async {
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        Ok::<_, anyhow::Error>(Client::try_from(config)?)
    })?;
    Ok((runtime, client))
}
