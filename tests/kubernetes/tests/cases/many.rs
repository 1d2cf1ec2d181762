//! Many Datasets at once.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kubernetes_tests::{POOL, Requests, World, create_many, delete_many, eventually, settle};

use crate::Case;

pub(crate) const ALONE: &[Case] = &[(
    "a_thousand_datasets_are_bound_rest_and_go_without_a_trace",
    thousand,
)];

const DATASETS: usize = 1_000;

/// A guard, never a measure.
const TIMEOUT: Duration = Duration::from_secs(300);

const REST: Duration = Duration::from_secs(20);

fn thousand(world: &World) -> Result<()> {
    let (namespace, mut bucket) = world.source("thousand")?;
    bucket.put_many("files", 10, 1_000)?;
    let names: Vec<_> = (0..DATASETS).map(|number| format!("data-{number:04}")).collect();
    let times = create_many(world, &namespace, &bucket.name, &names)?;
    let at = |part: usize| times.get(DATASETS * part / 100 - 1).context("too few");
    eprintln!("from create to Bound: p50 {:?}, p99 {:?}", at(50)?, at(99)?);

    let claims = namespace.run(&["get", "pvc", "-o", "jsonpath={.items[*].status.phase}"])?;
    let bound = claims
        .split_whitespace()
        .filter(|phase| *phase == "Bound")
        .count();
    ensure!(bound == DATASETS, "{bound} claims are bound");
    let files = namespace.run(&["get", "datasets", "-o", "jsonpath={.items[*].status.files}"])?;
    let listed = files.split_whitespace().filter(|files| *files == "10").count();
    ensure!(listed == DATASETS, "{listed} Datasets have ten files");

    // The last numbers and events are written, and what the case before has left goes.
    let asked = eventually("nothing to be written any more", TIMEOUT, || {
        let before = Requests::so_far(world)?;
        settle(REST);
        let asked = Requests::so_far(world)?.since(&before);
        ensure!(asked.writes == 0.0, "written: {:?}", asked.kinds);
        Ok(Some(asked))
    })?;
    eprintln!("at rest: {:.1} requests a second", asked.all / REST.as_secs_f64());

    delete_many(world, &namespace)?;
    eventually("all Datasets to be deleted", TIMEOUT, || {
        let left = namespace.run(&["get", "datasets,pvc", "-o", "name"])?;
        ensure!(left.trim().is_empty(), "left: {}", left.lines().count());
        Ok(Some(()))
    })?;
    let volumes = world.kubectl().run(&[
        "get",
        "pv",
        "-l",
        &format!("millpond.io/dataset-namespace={}", namespace.name()),
        "-o",
        "name",
    ])?;
    ensure!(volumes.trim().is_empty(), "volumes are left: {volumes}");
    eventually("the pool to have no Dataset", TIMEOUT, || {
        let words = ["get", "cachepool", POOL, "-o", "jsonpath={.status.datasets}"];
        let left = world.kubectl().run(&words)?;
        ensure!(left.trim() == "0", "it has {left}");
        Ok(Some(()))
    })
}
