//! `kubectl millpond`: what it shows is what is.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kubernetes_tests::{Dataset, Mount, Reader, World};
use serde_json::Value;
use test_cluster::eventually;

use crate::Case;

/// A guard, never a measure.
const GUARD: Duration = Duration::from_secs(180);

pub(crate) const CASES: &[Case] = &[
    ("the_plugin_shows_what_each_node_has", status),
    ("the_plugin_fetches_ahead_and_waits", warmup),
];

/// The doctor looks at all that there is.
pub(crate) const ALONE: &[Case] = &[("the_doctor_names_the_cause_and_the_fix", doctor)];

fn status(world: &World) -> Result<()> {
    let (namespace, mut bucket) = world.source("plugin-status")?;
    bucket.put_many("small", 10, 100_000)?;
    namespace.ready(&Dataset::of("data", &bucket))?;
    let reader = Reader::of(&namespace, "reader", "n1", "data", &bucket)?;
    reader.passes(3)?;
    reader.end()?;
    let table = world.plugin(&["status", "data", "-n", namespace.name()])?;
    ensure!(
        table.success
            && table.text.contains(&format!("{}/data", namespace.name()))
            && table.text.contains("Bound"),
        "{}",
        table.text
    );
    let report = world.plugin(&["status", "-n", namespace.name(), "--json"])?;
    let report: Value = serde_json::from_str(&report.text).with_context(|| report.text.clone())?;
    let node = report
        .pointer("/nodes/0")
        .with_context(|| format!("no node: {report}"))?;
    let name = world.node("n1")?;
    let number = |name: &str| node.get(name).and_then(Value::as_u64).unwrap_or_default();
    ensure!(
        node.get("node").is_some_and(|node| node == name)
            && number("totalBytes") == bucket.total_bytes()
            && number("usedBytes") >= bucket.total_bytes()
            && number("readLocalBytes") >= number("readOriginBytes"),
        "{node}"
    );
    let stranger = world.plugin(&["status", "absent", "-n", namespace.name()])?;
    ensure!(
        !stranger.success && stranger.text.contains("no Dataset absent"),
        "{}",
        stranger.text
    );
    Ok(())
}

fn warmup(world: &World) -> Result<()> {
    let (namespace, mut bucket) = world.source("plugin-warmup")?;
    bucket.put_many("train", 12, 100_000)?;
    bucket.put_many("test", 5, 100_000)?;
    namespace.ready(&Dataset::of("data", &bucket))?;
    let done = world.plugin(&["warmup", "data", "train/**", "--watch", "-n", namespace.name()])?;
    ensure!(
        done.success && done.text.contains("12 of 12 files are here"),
        "{}",
        done.text
    );
    // Without --watch it only asks.
    let asked = world.plugin(&["warmup", "data", "-n", namespace.name()])?;
    ensure!(asked.success && asked.text.contains("is made"), "{}", asked.text);
    namespace.wait("dataset/data", "Warm", "True")?;
    let stranger = world.plugin(&["warmup", "absent", "-n", namespace.name()])?;
    ensure!(
        !stranger.success && stranger.text.contains("no Dataset absent"),
        "{}",
        stranger.text
    );
    Ok(())
}

/// Waits for the deletion of the namespaces of cases that have ended: the doctor names what still blocks it, such as a pod
/// that ends slowly after an outage of the API server.
fn wait_for_ended_cases(world: &World) -> Result<()> {
    eventually("the namespaces of ended cases to be deleted", GUARD, || {
        let namespaces = world.kubectl().json(&["namespaces"])?;
        let items = namespaces.pointer("/items").and_then(Value::as_array);
        let items = items.context("a list has items")?;
        let is_terminating = |namespace: &Value| namespace.pointer("/metadata/deletionTimestamp").is_some();
        Ok((!items.iter().any(is_terminating)).then_some(()))
    })
}

fn doctor(world: &World) -> Result<()> {
    wait_for_ended_cases(world)?;
    let well = world.plugin(&["doctor"])?;
    let node = format!("node {}: its kubelet knows the CSI driver", world.node("n1")?);
    ensure!(well.success && well.text.contains(&node), "{}", well.text);
    let namespace = world.namespace("plugin-doctor")?;
    let mut bucket = world.s3.bucket("plugin-doctor")?;
    bucket.put("file", 1, 1_000)?;
    namespace.apply(&Dataset::new("data", Mount::new(&world.s3, &bucket.name, "absent")).yaml())?;
    namespace.wait("dataset/data", "Ready", "False")?;
    let ill = world.plugin(&["doctor", "--quiet"])?;
    ensure!(
        !ill.success
            && ill.text.contains(&format!("Dataset {}/data", namespace.name()))
            && ill.text.contains("SecretNotFound")
            && ill.text.contains("make the Secret"),
        "{}",
        ill.text
    );
    ensure!(!ill.text.contains("ok "), "it is not quiet: {}", ill.text);
    Ok(())
}
