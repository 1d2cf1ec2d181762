//! The hit ratio in a real Prometheus beside what the S3 server was asked for.

use std::time::Duration;

use anyhow::{Context, Result};
use harness::report::complain;
use kubernetes_tests::{Dataset, World, eventually};

use super::Sizes;
use super::pods::{Script, claim};
use crate::row::{Goal, Row, Unit};

const FILES: u64 = 300;
const FILE_BYTES: u64 = 100_000;
const EPOCHS: u64 = 4;

pub(super) fn measure(world: &World, _sizes: Sizes) -> Result<Vec<Row>> {
    let prometheus = world.cluster.own()?.prometheus();
    prometheus.start()?;
    let value = |expression: &str| -> Result<f64> {
        let value = prometheus.value(expression)?;
        value.with_context(|| format!("{expression} has no series"))
    };
    let (namespace, mut bucket) = world.source("figures-hits")?;
    bucket.put_many("files", FILES, FILE_BYTES)?;
    namespace.ready(&Dataset::of("data", &bucket))?;
    let before = world.s3.gets()?;
    let script = format!("for epoch in $(seq {EPOCHS}); do cat /data/files/* | wc -c; done");
    let pod = Script {
        name: "reader",
        script: &script,
        volumes: &[("data".to_owned(), claim("data"))],
    };
    pod.start(&namespace)?;
    pod.said(&namespace)?;
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    let (gets, reads) = ((world.s3.gets()? - before) as f64, (FILES * EPOCHS) as f64);
    let truth = 1.0 - gets / reads;
    let bytes = |from: &str| {
        let selector = format!("namespace=\"{}\"{from}", namespace.name());
        format!("sum(millpond_read_bytes_total{{{selector}}})")
    };
    let hits = format!("{} / {}", bytes(",served_from=~\"local|peer\""), bytes(""));
    #[expect(clippy::cast_precision_loss, reason = "far below where bytes are lost")]
    let all = (FILES * EPOCHS * FILE_BYTES) as f64;
    // Scraped each second; opens are reported within some more.
    let counted = eventually("Prometheus to know of all reads", Duration::from_secs(60), || {
        let counted = value(&bytes(""))?;
        anyhow::ensure!(
            (counted / all - 1.0).abs() < 1e-4,
            "{counted} of {all} bytes are counted"
        );
        Ok(Some(()))
    });
    if let Err(missing) = counted {
        complain(format_args!("{missing:#}"));
    }
    let found = value(&hits)?;
    prometheus.stop()?;
    Ok(vec![
        Row::of(
            "the hit ratio in Prometheus, less that of the S3 server's requests",
            Unit::Ratio,
            &[found - truth],
        )?
        .with_goal(Goal::Between(-0.01, 0.01))
        .with_note(format!(
            "{found:.4} to {truth:.4}: {gets} requests for {reads} files read"
        )),
    ])
}
