//! Fetching ahead.

use std::time::Duration;

use anyhow::{Result, ensure};
use kubernetes_tests::{Dataset, Reader, World, eventually};

use crate::Case;

/// Counts requests of all Datasets.
pub(crate) const ALONE: &[Case] = &[("a_load_brings_everything_and_a_read_asks_nobody", load_then_read)];

pub(crate) const CASES: &[Case] = &[
    ("a_dataset_fetches_itself_ahead", prefetch),
    ("two_tenants_have_their_quotas", quotas),
];

fn load_then_read(world: &World) -> Result<()> {
    let (namespace, mut bucket) = world.source("loads-all")?;
    bucket.put_many("train", 40, 50_000)?;
    bucket.put("train/large", 5, 20 << 20)?;
    let at_first = world.s3.gets()?;
    namespace.apply(&Dataset::of("data", &bucket).yaml())?;
    namespace.apply(
        "apiVersion: millpond.io/v1alpha1\nkind: DataLoad\nmetadata: {name: warm}\nspec: {dataset: data, paths: [\"/train/**\"]}\n",
    )?;
    namespace.wait("dataload/warm", "Complete", "True")?;
    let load = namespace.json(&["dataload/warm"])?;
    ensure!(
        load.pointer("/status/filesDone").is_some_and(|files| files == 41),
        "{load}"
    );
    ensure!(
        load.pointer("/status/bytesDone")
            .is_some_and(|bytes| bytes == bucket.total_bytes()),
        "{load}"
    );
    let before = world.s3.gets()?;
    let fetched = before - at_first;
    ensure!(
        fetched >= bucket.len(),
        "{fetched} requests are counted for {} files that were fetched",
        bucket.len()
    );
    let reader = Reader::of(&namespace, "reader", "n1", "data", &bucket)?;
    reader.passes(2)?;
    ensure!(
        world.s3.gets()? == before,
        "the source was asked for what is here"
    );
    // What was found once the kernel reads alone.
    let requests = world.fuse_requests("n1")?;
    reader.passes(3)?;
    let more = world.fuse_requests("n1")? - requests;
    ensure!(more == 0.0, "the driver was asked {more} times for what is here");
    reader.end()
}

fn prefetch(world: &World) -> Result<()> {
    let (namespace, mut bucket) = world.source("loads-prefetch")?;
    bucket.put_many("small", 30, 10_000)?;
    let dataset = Dataset::of("data", &bucket).with("prefetch: OnCreate");
    namespace.apply(&dataset.yaml())?;
    namespace.wait("dataset/data", "Warm", "True").map(drop)
}

fn quotas(world: &World) -> Result<()> {
    let namespaces = [
        world.namespace("loads-tenant-a")?,
        world.namespace("loads-tenant-b")?,
    ];
    let mut readers = Vec::new();
    for (namespace, size) in namespaces.iter().zip([1_u64 << 20, 3 << 19]) {
        let mut bucket = world.s3.bucket(namespace.name())?;
        bucket.put_many("small", 20, size)?;
        namespace.apply(&world.s3.secret("source"))?;
        let dataset = Dataset::of("data", &bucket).with("quota: 12Mi");
        namespace.apply(&dataset.yaml())?;
        namespace.wait("dataset/data", "Ready", "True")?;
        readers.push(Reader::start(
            namespace,
            "reader",
            "n1",
            &Reader::claim("data"),
            &bucket.sums("/data"),
        )?);
    }
    for reader in &readers {
        reader.passes(2)?;
    }
    for namespace in &namespaces {
        eventually("its share to be used", Duration::from_secs(60), || {
            let dataset = namespace.json(&["dataset/data"])?;
            let cached = dataset
                .pointer("/status/cached")
                .and_then(|text| text.as_str())
                .unwrap_or_default();
            let number: f64 = cached.trim_end_matches("Mi").parse().unwrap_or(0.0);
            ensure!(number <= 12.0, "{} holds {cached} of 12Mi", namespace.name());
            Ok((number >= 6.0).then_some(()))
        })?;
    }
    Ok(())
}
