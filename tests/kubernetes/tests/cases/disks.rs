//! A node's disk that others fill.

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kubernetes_tests::{Dataset, Reader, World, condition_of, eventually};
use serde_json::Value;

use crate::Case;

pub(crate) const CASES: &[Case] = &[("a_short_disk_is_spared_and_told", short_disk)];

/// A disk of its own on the node, of so many MiB. Half of it stays free.
const DISK: &str = "/mnt/short";
const DISK_MIB: u64 = 200;

const GUARD: Duration = Duration::from_secs(60);

fn short_disk(world: &World) -> Result<()> {
    let node = world.node("n1")?;
    let on_node = |words: &[&str]| world.cluster.node(node)?.run(words);
    on_node(&["mkdir", "-p", DISK])?;
    let size = format!("size={DISK_MIB}m");
    on_node(&["mount", "-t", "tmpfs", "-o", &size, "millpond-short", DISK])?;
    let found = spares_it(world, node);
    // The pool's pods keep the disk mounted until they end; the last of them frees it.
    world
        .kubectl()
        .run(&["delete", "cachepool", "short", "--ignore-not-found"])?;
    on_node(&["umount", "--lazy", DISK])?;
    found
}

fn spares_it(world: &World, node: &str) -> Result<()> {
    let (namespace, mut bucket) = world.source("short-disk")?;
    bucket.put_many("train", 150, 1 << 20)?;
    world.kubectl().apply(&pool("180Mi"))?;
    let message = usable(world, "False", "DiskShort")?;
    ensure!(message.contains(node), "{message}");

    // More than there is room for.
    let dataset = Dataset::of("data", &bucket)
        .with("pool: short")
        .with("eviction: LRU");
    namespace.apply(&dataset.yaml())?;
    namespace.ready(&dataset)?;
    let reader = Reader::of(&namespace, "reader", "n1", "data", &bucket)?;
    reader.passes(2)?;
    free(world, node, 98..=130)?;

    // Now a program that is not Millpond needs some.
    let stranger = format!("{DISK}/stranger");
    world
        .cluster
        .node(node)?
        .run(&["fallocate", "--length", "30M", &stranger])?;
    free(world, node, 98..=130)?;
    reader.passes(1)?;

    world.kubectl().apply(&pool("50Mi"))?;
    usable(world, "True", "AsExpected")?;
    reader.passes(1)?;
    reader.end()?;
    namespace.run(&["delete", "dataset", "data"])?;
    namespace.gone("dataset/data")
}

fn pool(capacity: &str) -> String {
    format!(
        "apiVersion: millpond.io/v1alpha1\nkind: CachePool\nmetadata: {{name: short}}\nspec:\n  nodeSelector: \
         {{millpond.test/node: n1}}\n  tiers:\n  - {{medium: Disk, path: {DISK}, capacity: {capacity}, minFreePercent: 50}}\n"
    )
}

/// Waits for what the pool says of its capacity; the message.
fn usable(world: &World, status: &str, reason: &str) -> Result<String> {
    eventually(&format!("CapacityUsable to be {status}"), GUARD, || {
        let pool: Value = world.kubectl().json(&["cachepool/short"])?;
        let (found, why, message) =
            condition_of(&pool, "CapacityUsable").context("it has no such condition")?;
        ensure!(
            (found.as_str(), why.as_str()) == (status, reason),
            "{found}, {why}: {message}"
        );
        Ok(Some(message))
    })
}

/// Waits until so many MiB are free: what is read is evicted and fetched again all the time.
fn free(world: &World, node: &str, mib: RangeInclusive<u64>) -> Result<()> {
    eventually("the right part of the disk to be free", GUARD, || {
        let free = free_mib(world, node)?;
        ensure!(mib.contains(&free), "{free} MiB of {DISK_MIB} are free");
        Ok(Some(()))
    })
}

fn free_mib(world: &World, node: &str) -> Result<u64> {
    let said = world
        .cluster
        .node(node)?
        .run(&["stat", "--file-system", "--format=%a %S", DISK])?;
    let numbers: Vec<u64> = said
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let [blocks, block_bytes] = numbers[..] else {
        anyhow::bail!("stat says {said:?}");
    };
    Ok((blocks * block_bytes) >> 20)
}
