//! Resident memory of Millpond's processes, and that of their own (not of files).

use anyhow::{Context, Result};
use kubernetes_tests::{Dataset, World};

use super::pods::{Script, claim};
use crate::row::{Goal, Row, Unit};

const VOLUMES: usize = 10;

pub(super) fn measure(world: &World) -> Result<Vec<Row>> {
    let (namespace, mut bucket) = world.source("figures-memory")?;
    bucket.put_many("files", 200, 100_000)?;
    let names: Vec<_> = (0..VOLUMES).map(|number| format!("data-{number}")).collect();
    for name in &names {
        namespace.apply(&Dataset::of(name, &bucket).yaml())?;
    }
    for name in &names {
        namespace.wait(&format!("dataset/{name}"), "Ready", "True")?;
    }
    let volumes: Vec<_> = names.iter().map(|name| (name.clone(), claim(name))).collect();
    let pod = Script {
        name: "reader",
        // All that there is, and the volumes stay until it is looked at.
        script: "cat /data-*/files/* | wc -c; touch /tmp/done; sleep 20",
        volumes: &volumes,
    };
    pod.start(&namespace)?;
    kubernetes_tests::eventually(
        "the pod to have read",
        std::time::Duration::from_secs(120),
        || {
            namespace
                .run(&["exec", "reader", "--", "ls", "/tmp/done"])
                .map(Some)
        },
    )?;
    let driver = resident(world, "n1", "millpond-csi-driver")?;
    let keeper = resident(world, "n1", "millpond-keeper")?;
    pod.said(&namespace)?;
    let what = format!("the CSI driver with {VOLUMES} volumes of {VOLUMES} Datasets");
    Ok(vec![
        driver.row(&what)?.with_goal(Goal::AtMost(100.0)),
        keeper
            .row("the keeper with their mounts")?
            .with_goal(Goal::AtMost(5.0)),
    ])
}

/// The larger one of the controllers.
pub(super) fn controller(world: &World, datasets: usize) -> Result<Row> {
    let found = ["n1", "n2"].map(|node| resident(world, node, "millpond-controller").ok());
    let largest = found
        .into_iter()
        .flatten()
        .max_by(|one, other| one.all.total_cmp(&other.all));
    let largest = largest.context("no node has a controller")?;
    Ok(largest
        .row(&format!("the controller with {datasets} Datasets"))?
        .with_goal(Goal::AtMost(150.0)))
}

struct Resident {
    all: f64,
    own: f64,
}

impl Resident {
    fn row(&self, what: &str) -> Result<Row> {
        let note = format!("of these {:.1} MiB of its own", self.own);
        Ok(Row::of(format!("{what}: resident"), Unit::Mebibytes, &[self.all])?.with_note(note))
    }
}

fn resident(world: &World, node: &str, program: &str) -> Result<Resident> {
    // The kernel keeps 15 letters of a name.
    let name: String = program.chars().take(15).collect();
    let script = format!("cat /proc/$(pgrep -x {name} | head -n 1)/status");
    let status = world.cluster.node(node)?.run(&["sh", "-c", &script])?;
    let field = |name: &str| -> Result<f64> {
        let line = status.lines().find(|line| line.starts_with(name));
        let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
        let kilobytes = kilobytes.with_context(|| format!("{program} on {node} has no {name}"))?;
        Ok(kilobytes.parse::<f64>()? / 1024.0)
    };
    Ok(Resident {
        all: field("VmRSS")?,
        own: field("RssAnon")?,
    })
}
