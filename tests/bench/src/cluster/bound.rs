//! From a Dataset's creation to Bound, as a watch of the API server sees it.

use std::time::Duration;

use anyhow::{Context, Result};
use kubernetes_tests::{World, create_many, delete_many};

use super::{Sizes, at_rest, memory};
use crate::row::{Goal, Row, Unit};

pub(super) fn measure(world: &World, sizes: Sizes) -> Result<Vec<Row>> {
    let mut rows = vec![one(world, sizes)?];
    let (namespace, mut bucket) = world.source("figures-thousand")?;
    bucket.put_many("files", 10, 1_000)?;
    let names: Vec<_> = (0..sizes.datasets)
        .map(|number| format!("data-{number:04}"))
        .collect();
    let times = create_many(world, &namespace, &bucket.name, &names)?;
    let at = |part: usize| {
        let place = (times.len() * part).div_ceil(100).saturating_sub(1);
        times
            .get(place)
            .map(Duration::as_secs_f64)
            .context("nothing was bound")
    };
    let what = format!(
        "{} Datasets of 10 files at once, created to Bound",
        sizes.datasets
    );
    rows.push(Row::of(format!("{what}, p50"), Unit::Seconds, &[at(50)?])?);
    rows.push(Row::of(format!("{what}, p99"), Unit::Seconds, &[at(99)?])?.with_goal(Goal::AtMost(10.0)));
    rows.push(memory::controller(world, sizes.datasets)?);
    rows.extend(at_rest::measure(world, sizes)?);
    delete_many(world, &namespace)?;
    Ok(rows)
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
