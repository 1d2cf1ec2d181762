//! From a pod's creation to the first byte it reads, warm, beside the same pod with a directory of the node.

use anyhow::Result;
use kubernetes_tests::{Dataset, Namespace, World};
use millpond_measure::statistics::median;

use super::Sizes;
use super::pods::{Script, claim, host, now, seconds};
use crate::row::{Goal, Row, Unit};

/// Of the node; made by the pod that has it first.
const NATIVE: &str = "/mnt/figures-first-byte";

pub(super) fn measure(world: &World, sizes: Sizes) -> Result<Vec<Row>> {
    let (namespace, mut bucket) = world.source("figures-first-byte")?;
    bucket.put_many("files", 100, 100_000)?;
    let dataset = Dataset::of("data", &bucket);
    namespace.apply(&dataset.with("prefetch: OnCreate").yaml())?;
    namespace.wait("dataset/data", "Warm", "True")?;
    let filling = Script {
        name: "filling",
        script: "mkdir -p /data/files && head -c 100000 /dev/zero >/data/files/00000",
        volumes: &[("data".to_owned(), host(NATIVE))],
    };
    filling.start(&namespace)?;
    filling.said(&namespace)?;
    let (mut native, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..sizes.rounds {
        native.push(round(&namespace, &host(NATIVE))?);
        ours.push(round(&namespace, &claim("data"))?);
    }
    let more: Vec<_> = ours
        .iter()
        .zip(&native)
        .map(|(ours, native)| (ours - native) * 1e3)
        .collect();
    let of = |values: &[f64]| median(values).unwrap_or_default();
    Ok(vec![
        Row::of(
            "a pod's creation to its first byte, warm: more than with a hostPath",
            Unit::Milliseconds,
            &more,
        )?
        .with_goal(Goal::AtMost(300.0))
        .with_note(format!("{:.2} s to hostPath's {:.2} s", of(&ours), of(&native))),
    ])
}

fn round(namespace: &Namespace, volume: &str) -> Result<f64> {
    let pod = Script {
        name: "reader",
        script: "head -c 1 /data/files/00000 >/dev/null; cat /proc/uptime",
        volumes: &[("data".to_owned(), volume.to_owned())],
    };
    let begun = now()?;
    pod.start(namespace)?;
    Ok(seconds(&pod.said(namespace)?)? - begun)
}
