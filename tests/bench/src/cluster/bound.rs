//! From a Dataset's creation to Bound, as a watch of the API server sees it.

use std::time::Duration;

use anyhow::{Context, Result};
use kubernetes_tests::{World, bind_by_hand, create_many, delete_many, eventually};

use super::{Sizes, at_rest, memory};
use crate::row::{Goal, Row, Unit};

/// A guard, never a measure.
const TIMEOUT: Duration = Duration::from_secs(600);

pub(super) fn measure(world: &World, sizes: Sizes) -> Result<Vec<Row>> {
    let mut rows = vec![one(world, sizes)?];
    let (namespace, mut bucket) = world.source("figures-thousand")?;
    bucket.put_many("files", 10, 1_000)?;
    let names: Vec<_> = (0..sizes.datasets)
        .map(|number| format!("data-{number:04}"))
        .collect();
    let times = create_many(world, &namespace, &bucket.name, &names)?;
    let what = format!(
        "{} Datasets of 10 files at once, created to Bound",
        sizes.datasets
    );
    let (median, last) = (at(&times, 50)?, at(&times, 99)?);
    rows.push(Row::of(format!("{what}, p50"), Unit::Seconds, &[median])?);
    rows.push(Row::of(format!("{what}, p99"), Unit::Seconds, &[last])?.with_goal(Goal::AtMost(10.0)));
    rows.push(memory::controller(world, sizes.datasets)?);
    rows.extend(at_rest::measure(world, sizes)?);
    delete_many(world, &namespace)?;
    eventually("no Dataset any more", TIMEOUT, || {
        let left = namespace.run(&["get", "datasets", "-o", "name"])?;
        Ok(left.trim().is_empty().then_some(()))
    })?;
    let namespace = world.namespace("figures-by-hand")?;
    let by_hand = at(&bind_by_hand(world, &namespace, &names)?, 99)?;
    let what = "the same objects made by a plain client, p99";
    rows.push(Row::of(what, Unit::Seconds, &[by_hand])?);
    rows.push(Row::of(
        "Datasets / the same objects by a plain client, p99",
        Unit::Ratio,
        &[last / by_hand],
    )?);
    Ok(rows)
}

/// The time below which so many of a hundred are, in seconds; `times` are in their order.
fn at(times: &[Duration], part: usize) -> Result<f64> {
    let place = (times.len() * part).div_ceil(100).saturating_sub(1);
    let time = times.get(place).context("nothing was bound")?;
    Ok(time.as_secs_f64())
}

fn one(world: &World, sizes: Sizes) -> Result<Row> {
    let (namespace, mut bucket) = world.source("figures-bound")?;
    bucket.put_many("files", 1_000, 1_000)?;
    let times = (0..sizes.rounds)
        .map(|round| create_many(world, &namespace, &bucket.name, &[format!("data-{round}")]))
        .collect::<Result<Vec<_>>>()?;
    let times: Vec<f64> = times.iter().flatten().map(Duration::as_secs_f64).collect();
    Ok(Row::of(
        "a Dataset of 1,000 files, created to Bound",
        Unit::Seconds,
        &times,
    )?
    .with_goal(Goal::AtMost(1.0)))
}
