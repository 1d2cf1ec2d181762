//! What the API server is asked while nothing happens.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use kubernetes_tests::{World, settle};

use super::Sizes;
use crate::row::{Goal, Row, Unit};

/// Until what was done before has come to rest.
const CALM: Duration = Duration::from_secs(45);

/// Verbs that change nothing.
const READS: [&str; 4] = ["GET", "LIST", "WATCH", "CONNECT"];

/// What the cluster does by itself at rest, without Millpond.
const OTHERS: [&str; 2] = ["leases", "nodes"];

pub(super) fn measure(world: &World, sizes: Sizes) -> Result<Vec<Row>> {
    settle(CALM);
    let before = requests(world)?;
    settle(Duration::from_secs(sizes.rest_seconds));
    let after = requests(world)?;
    let mut writes = 0.0;
    let mut all = 0.0;
    let mut kinds = Vec::new();
    for ((verb, resource), count) in &after {
        let new = count
            - before
                .get(&(verb.clone(), resource.clone()))
                .copied()
                .unwrap_or(0.0);
        all += new;
        if new > 0.0 && !READS.contains(&verb.as_str()) && !OTHERS.contains(&resource.as_str()) {
            writes += new;
            kinds.push(format!("{verb} {resource} {new}"));
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    let seconds = sizes.rest_seconds as f64;
    let what = format!("{} idle Datasets: the API server's", sizes.datasets);
    Ok(vec![
        Row::of(
            format!("{what} writes a minute, Leases apart"),
            Unit::Count,
            &[writes * 60.0 / seconds],
        )?
        .with_goal(Goal::AtMost(0.0))
        .with_note(kinds.join(", ")),
        Row::of(format!("{what} requests a second"), Unit::Count, &[all / seconds])?
            .with_note("of the whole cluster"),
    ])
}

/// Requests so far by verb and resource.
fn requests(world: &World) -> Result<BTreeMap<(String, String), f64>> {
    let text = world.kubectl().run(&["get", "--raw", "/metrics"])?;
    let mut found = BTreeMap::new();
    for line in text
        .lines()
        .filter(|line| line.starts_with("apiserver_request_total{"))
    {
        let label = |name: &str| {
            let (_, rest) = line.split_once(&format!("{name}=\""))?;
            rest.split_once('"').map(|(value, _)| value.to_owned())
        };
        let (_, value) = line.rsplit_once(' ').context("a metric has a value")?;
        let key = (
            label("verb").unwrap_or_default(),
            label("resource").unwrap_or_default(),
        );
        *found.entry(key).or_insert(0.0) += value.parse::<f64>()?;
    }
    Ok(found)
}
