//! Reads in a pod: a large file, and many small ones, cached, beside the same bytes on the node's disk.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kubernetes_tests::{Dataset, Namespace, World};
use millpond_measure::evaluate;

use super::Sizes;
use super::pods::{Script, claim, host, seconds};
use crate::row::{Goal, Rate, Row};

/// Of the node; filled by a pod.
const NATIVE: &str = "/mnt/figures-reading";

/// Passes in one pod.
const PASSES: usize = 9;

/// Bytes of a small file.
const SMALL_BYTES: u64 = 100_000;

pub(super) fn measure(world: &World, sizes: Sizes) -> Result<Vec<Row>> {
    let namespace = world.namespace("figures-reading")?;
    let mut bucket = world.s3.bucket("figures-reading")?;
    let large_bytes = sizes.large_mib << 20;
    bucket.put("large", 1, large_bytes)?;
    bucket.put_many("small", sizes.small_files, SMALL_BYTES)?;
    namespace.apply(&world.s3.secret("source"))?;
    let dataset = Dataset::of("data", &bucket);
    namespace.apply(&dataset.with("prefetch: OnCreate").yaml())?;
    namespace.wait("dataset/data", "Warm", "True")?;
    let volumes = [
        ("ours".to_owned(), claim("data")),
        ("native".to_owned(), host(NATIVE)),
    ];
    let filling = Script {
        name: "filling",
        script: "cp -r /ours/* /native/ && sync",
        volumes: &volumes,
    };
    filling.start(&namespace)?;
    filling.said(&namespace)?;
    let large = passes(&namespace, &volumes, "cat DIR/large", large_bytes, 1 << 20)?;
    let small_bytes = sizes.small_files * SMALL_BYTES;
    let small = passes(
        &namespace,
        &volumes,
        "find DIR/small -type f | sort | xargs cat",
        small_bytes,
        10 * SMALL_BYTES,
    )?;
    let clean = Script {
        name: "clean",
        script: "rm -rf /native/*",
        volumes: &volumes,
    };
    clean.start(&namespace)?;
    clean.said(&namespace)?;
    Ok(vec![
        Row::ratio(
            format!("in a pod, cached: a file of {} MiB", sizes.large_mib),
            &evaluate(large),
            Rate::Bytes(large_bytes),
        )?
        .with_goal(Goal::AtLeast(0.95)),
        Row::ratio(
            format!("in a pod, cached: {} files of 100 KB", sizes.small_files),
            &evaluate(small),
            Rate::Files(sizes.small_files),
        )?
        .with_goal(Goal::AtLeast(0.80)),
    ])
}

/// Runs a command of the shell on both directories in turns, after one turn that does not count. What it says is counted
/// in whole blocks: a busybox's `dd` counts nothing else, and its `wc` is slower than what it counts.
fn passes(
    namespace: &Namespace,
    volumes: &[(String, String)],
    command: &str,
    bytes: u64,
    block_bytes: u64,
) -> Result<Vec<(String, Vec<Duration>)>> {
    let on = |directory: &str| command.replace("DIR", directory);
    let (native, ours) = (on("/native"), on("/ours"));
    let script = format!(
        "clock() {{ read up rest </proc/uptime; echo $1 $up; }}\n\
         count() {{ dd of=/dev/null bs={block_bytes} iflag=fullblock 2>&1 | sed -n 's/ records in//p'; }}\n\
         for pass in $(seq 0 {PASSES}); do\n\
         clock start; n=$({native} | count); clock native; o=$({ours} | count); clock ours; echo blocks $n $o\n\
         done\n"
    );
    let pod = Script {
        name: "reader",
        script: &script,
        volumes,
    };
    pod.start(namespace)?;
    let said = pod.said(namespace)?;
    let (mut times, mut last) = ((Vec::new(), Vec::new()), 0.0);
    for line in said.lines() {
        let (word, rest) = line.split_once(' ').with_context(|| said.clone())?;
        if word == "blocks" {
            // No block that is not whole: every byte is counted.
            let blocks = format!("{}+0", bytes / block_bytes);
            ensure!(
                bytes.is_multiple_of(block_bytes) && rest == format!("{blocks} {blocks}"),
                "read other sizes: {rest} blocks, not {blocks}"
            );
            continue;
        }
        let now = seconds(rest)?;
        let since = Duration::from_secs_f64((now - last).max(0.0));
        match word {
            "native" => times.0.push(since),
            "ours" => times.1.push(since),
            _ => {}
        }
        last = now;
    }
    // The first pass brings both into the page cache.
    let warm = |times: Vec<Duration>| times.into_iter().skip(1).collect::<Vec<_>>();
    Ok(vec![
        ("the disk".to_owned(), warm(times.0)),
        ("Millpond".to_owned(), warm(times.1)),
    ])
}
