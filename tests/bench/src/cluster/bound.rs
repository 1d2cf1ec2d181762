//! From a Dataset's creation to Bound, as a watch of the API server sees it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use api::{Dataset, DatasetPhase};
use futures::{StreamExt, TryStreamExt};
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use kubernetes_tests::{Namespace, World};
use serde_json::json;

use super::{Sizes, at_rest, client, memory};
use crate::row::{Goal, Row, Unit};

/// Datasets that are created at the same moment.
const AT_ONCE: usize = 32;

/// A guard, never a measure.
const PATIENCE: Duration = Duration::from_secs(600);

pub(super) fn measure(world: &World, sizes: Sizes) -> Result<Vec<Row>> {
    let mut rows = vec![one(world, sizes)?];
    let (namespace, mut bucket) = world.source("figures-thousand")?;
    bucket.put_many("files", 10, 1_000)?;
    let names: Vec<_> = (0..sizes.datasets)
        .map(|number| format!("data-{number:04}"))
        .collect();
    let mut times = created(world, &namespace, &bucket.name, &names)?;
    times.sort_by(f64::total_cmp);
    let at = |part: usize| {
        let place = (times.len() * part).div_ceil(100).saturating_sub(1);
        times.get(place).copied().context("nothing was bound")
    };
    let what = format!(
        "{} Datasets of 10 files at once, created to Bound",
        sizes.datasets
    );
    rows.push(Row::of(format!("{what}, p50"), Unit::Seconds, &[at(50)?])?);
    rows.push(Row::of(format!("{what}, p99"), Unit::Seconds, &[at(99)?])?.with_goal(Goal::AtMost(10.0)));
    rows.push(memory::controller(world, sizes.datasets)?);
    rows.extend(at_rest::measure(world, sizes)?);
    Ok(rows)
}

fn one(world: &World, sizes: Sizes) -> Result<Row> {
    let (namespace, mut bucket) = world.source("figures-bound")?;
    bucket.put_many("files", 1_000, 1_000)?;
    let times: Vec<f64> = (0..sizes.rounds)
        .map(|round| created(world, &namespace, &bucket.name, &[format!("data-{round}")]))
        .collect::<Result<Vec<_>>>()?
        .concat();
    Ok(Row::of(
        "a Dataset of 1,000 files, created to Bound",
        Unit::Seconds,
        &times,
    )?
    .with_goal(Goal::AtMost(1.0)))
}

/// Creates Datasets of a bucket; seconds from each one's request to the watch's word that it is Bound.
fn created(world: &World, namespace: &Namespace, bucket: &str, names: &[String]) -> Result<Vec<f64>> {
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
    let manifests = manifests.collect::<Result<Vec<Dataset>>>()?;
    let (runtime, client) = client(world)?;
    let api: Api<Dataset> = Api::namespaced(client, namespace.name());
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
            .buffer_unordered(AT_ONCE)
            .try_collect::<BTreeMap<_, _>>();
        let (bound, begun) = tokio::join!(watched, creating);
        let (bound, begun) = (bound?, begun?);
        begun
            .iter()
            .map(|(name, begun)| {
                let end = bound.get(name).with_context(|| format!("{name} was not seen"))?;
                Ok(end.saturating_duration_since(*begun).as_secs_f64())
            })
            .collect()
    })
}

/// When each Dataset that was not Bound at first was Bound, until there are `count` of them.
async fn watch(api: Api<Dataset>, count: usize) -> Result<BTreeMap<String, Instant>> {
    let events = watcher(api, watcher::Config::default()).applied_objects();
    let mut events = std::pin::pin!(events);
    let mut before = BTreeMap::new();
    let mut bound = BTreeMap::new();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while bound.len() < count {
        let Ok(next) = tokio::time::timeout_at(deadline, events.next()).await else {
            bail!("{} of {count} Datasets are Bound after {PATIENCE:?}", bound.len());
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
