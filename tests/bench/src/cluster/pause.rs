//! The longest pause that a reader of what is not cached sees while the node's driver is replaced.

use std::time::Duration;

use anyhow::{Context, Result};
use kubernetes_tests::{Dataset, SYSTEM, World, eventually, settle};

use super::Sizes;
use super::pods::{Script, claim, seconds};
use crate::row::{Goal, Row, Unit};

/// How long is read before and after.
const CALM: Duration = Duration::from_secs(3);

pub(super) fn measure(world: &World, sizes: Sizes) -> Result<Vec<Row>> {
    let mut upgraded = Vec::new();
    let mut deleted = Vec::new();
    for round in 0..sizes.rounds.div_ceil(2) {
        let value = format!("csiDriver.env[0].name=ROUND,csiDriver.env[0].value=r{round}");
        upgraded.push(longest(world, &format!("upgraded-{round}"), || {
            world.helm(&[
                "upgrade",
                "millpond",
                "deploy/chart",
                "--namespace",
                SYSTEM,
                "--reuse-values",
                "--set",
                &value,
            ])?;
            world.wait_ready()
        })?);
        deleted.push(longest(world, &format!("deleted-{round}"), || {
            world.replace_pods("csi-driver", "n1")
        })?);
    }
    Ok(vec![
        Row::of(
            "the longest read of what is not cached: the driver upgraded by surge",
            Unit::Seconds,
            &upgraded,
        )?
        .with_goal(Goal::AtMost(2.0)),
        Row::of(
            "the longest read of what is not cached: the driver's pod deleted",
            Unit::Seconds,
            &deleted,
        )?,
    ])
}

/// The longest of reads, one after the other, while `disturb` does its work.
fn longest(world: &World, name: &str, disturb: impl FnOnce() -> Result<()>) -> Result<f64> {
    let (namespace, mut bucket) = world.source(&format!("figures-{name}"))?;
    bucket.put_many("files", 40, 9 << 20)?;
    // Next to none of it fits, and nothing makes room: a read of these is never from the cache.
    let dataset = Dataset::of("data", &bucket);
    namespace.apply(&dataset.with("quota: 10Mi").yaml())?;
    namespace.wait("dataset/data", "Ready", "True")?;
    // Pieces of 1 MiB in places that the last pass has not left in the page cache.
    let script = "read up rest </proc/uptime; last=$up; piece=0\n\
                  until [ -e /tmp/stop ]; do\n\
                  for file in /data/files/*; do\n\
                  dd if=$file of=/dev/null bs=65536 count=1 skip=$((piece % 144)) iflag=direct 2>/dev/null || echo broken\n\
                  read up rest </proc/uptime; echo read $up; [ -e /tmp/stop ] && break\n\
                  done; piece=$((piece + 16)); done\n";
    let pod = Script {
        name: "reader",
        script,
        volumes: &[("data".to_owned(), claim("data"))],
    };
    pod.start(&namespace)?;
    eventually("the reader to read", Duration::from_secs(60), || {
        Ok(namespace.run(&["logs", "reader"])?.contains("read").then_some(()))
    })?;
    settle(CALM);
    disturb()?;
    settle(CALM);
    namespace.run(&["exec", "reader", "--", "touch", "/tmp/stop"])?;
    let said = pod.said(&namespace)?;
    anyhow::ensure!(!said.contains("broken"), "a read failed");
    let times: Vec<f64> = said
        .lines()
        .filter_map(|line| line.strip_prefix("read "))
        .map(seconds)
        .collect::<Result<_>>()?;
    let pauses = times
        .iter()
        .zip(times.iter().skip(1))
        .map(|(one, next)| next - one);
    pauses.max_by(f64::total_cmp).context("nothing was read")
}
