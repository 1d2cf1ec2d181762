//! From a Dataset to a pod that reads it.

use anyhow::{Context, Result, ensure};
use kubernetes_tests::{Dataset, Mount, Reader, World, eventually};
use std::time::Duration;

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    ("a_dataset_is_read_by_a_pod", a_dataset_is_read_by_a_pod),
    ("two_sources_with_other_credentials_are_one_dataset", two_sources),
    ("three_pods_on_two_nodes_share_a_claim", three_pods),
    ("a_pod_needs_no_claim", inline_volume),
    ("a_volume_is_read_only_whatever_is_asked", read_only),
];

/// `f_type` of an overlay, in hexadecimal digits.
const OVERLAYFS_MAGIC: &str = "794c7630";

fn a_dataset_is_read_by_a_pod(world: &World) -> Result<()> {
    let (namespace, mut bucket) = world.source("mounting-one")?;
    bucket.put_many("small", 50, 20_000)?;
    bucket.put("large", 7, 12 << 20)?;
    namespace.ready(&Dataset::of("train", &bucket))?;
    let dataset = namespace.json(&["dataset/train"])?;
    ensure!(
        dataset
            .pointer("/status/phase")
            .is_some_and(|phase| phase == "Bound"),
        "{dataset}"
    );
    ensure!(
        dataset.pointer("/status/files").is_some_and(|files| files == 51),
        "{dataset}"
    );
    let claim = namespace.json(&["pvc/train"])?;
    ensure!(
        claim
            .pointer("/status/phase")
            .is_some_and(|phase| phase == "Bound"),
        "{claim}"
    );
    let reader = Reader::of(&namespace, "reader", "n1", "train", &bucket)?;
    reader.passes(3)?;
    // The number, as not every busybox has the name.
    let magic = reader.exec(&["stat", "-f", "-c", "%t", "/data"])?;
    ensure!(
        magic.trim() == OVERLAYFS_MAGIC,
        "on a node with a worker it is a kernel view, not a file system of type {magic}"
    );
    // What was read is in the cache, and counted.
    eventually("the status to say so", Duration::from_secs(60), || {
        let dataset = namespace.json(&["dataset/train"])?;
        let percentage = dataset
            .pointer("/status/cachedPercentage")
            .and_then(|text| text.as_str());
        Ok(percentage
            .is_some_and(|percentage| percentage.starts_with("100"))
            .then_some(()))
    })?;
    reader.end()
}

fn two_sources(world: &World) -> Result<()> {
    let namespace = world.namespace("mounting-two")?;
    let (mut one, mut other) = (world.s3.bucket("mounting-a")?, world.other.bucket("mounting-b")?);
    one.put_many("x", 10, 30_000)?;
    other.put_many("y", 10, 40_000)?;
    namespace.apply(&world.s3.secret("one"))?;
    namespace.apply(&world.other.secret("other"))?;
    let dataset = Dataset::new("both", Mount::new(&world.s3, &one.name, "one").named("one"))
        .mount(Mount::new(&world.other, &other.name, "other").named("other"));
    namespace.apply(&dataset.yaml())?;
    namespace.wait("dataset/both", "Ready", "True")?;
    let sums = one.sums("/data/one") + &other.sums("/data/other");
    let reader = Reader::start(&namespace, "reader", "n1", &Reader::claim("both"), &sums)?;
    reader.passes(2)?;
    reader.end()
}

fn three_pods(world: &World) -> Result<()> {
    let (namespace, mut bucket) = world.source("mounting-three")?;
    bucket.put_many("small", 20, 20_000)?;
    bucket.put("large", 3, 10 << 20)?;
    namespace.ready(&Dataset::of("shared", &bucket))?;
    let sums = bucket.sums("/data");
    let claim = Reader::claim("shared");
    let readers = [("first", "n1"), ("second", "n1"), ("elsewhere", "n2")]
        .map(|(name, node)| Reader::start(&namespace, name, node, &claim, &sums));
    for reader in readers {
        // The third one's node has no worker: it reads through the other's.
        reader?.passes(2)?;
    }
    Ok(())
}

fn inline_volume(world: &World) -> Result<()> {
    let (namespace, mut bucket) = world.source("mounting-inline")?;
    bucket.put_many("small", 20, 20_000)?;
    namespace.ready(&Dataset::of("plain", &bucket))?;
    let reader = Reader::start(
        &namespace,
        "reader",
        "n1",
        &Reader::inline("plain"),
        &bucket.sums("/data"),
    )?;
    reader.passes(2)?;
    // Another namespace's pods may not.
    let stranger = world.namespace("mounting-stranger")?;
    let volume = Reader::inline(&format!("{}/plain", namespace.name()));
    let _refused = Reader::start(&stranger, "reader", "n1", &volume, &bucket.sums("/data"))?;
    let said = stranger.event("pod/reader", "FailedMount")?;
    ensure!(said.contains("sharedWith"), "the refusal names the field: {said}");
    reader.end()
}

fn read_only(world: &World) -> Result<()> {
    let (namespace, mut bucket) = world.source("mounting-ro")?;
    bucket.put_many("small", 5, 1_000)?;
    let dataset = Dataset::of("plain", &bucket).with("accessModes: [ReadWriteMany]");
    namespace.apply(&dataset.yaml())?;
    namespace.wait("dataset/plain", "Ready", "True")?;
    let reader = Reader::of(&namespace, "reader", "n1", "plain", &bucket)?;
    reader.passes(1)?;
    let refused = reader
        .exec(&["touch", "/data/new"])
        .err()
        .context("something was written")?;
    ensure!(
        format!("{refused:#}").contains("Read-only file system"),
        "{refused:#}"
    );
    reader.end()
}
