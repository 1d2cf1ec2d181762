//! Deleting a Dataset: refused while pods use it, whole afterwards.

use anyhow::{Result, ensure};
use kubernetes_tests::{Dataset, Reader, World};

use crate::Case;

pub(crate) const CASES: &[Case] = &[(
    "a_dataset_in_use_stays_and_goes_without_a_trace_afterwards",
    in_use,
)];

fn in_use(world: &World) -> Result<()> {
    let (namespace, mut bucket) = world.source("deletion")?;
    bucket.put_many("small", 20, 20_000)?;
    namespace.ready(&Dataset::of("data", &bucket))?;
    let reader = Reader::of(&namespace, "reader", "n1", "data", &bucket)?;
    reader.passes(1)?;
    let dataset = namespace.json(&["dataset/data"])?;
    let uid = dataset
        .pointer("/metadata/uid")
        .and_then(|uid| uid.as_str())
        .unwrap_or_default()
        .to_owned();
    namespace.run(&["delete", "dataset", "data", "--wait=false"])?;
    let (_, message) = namespace.wait("dataset/data", "DeletionBlocked", "True")?;
    ensure!(message.contains("reader"), "the pod is named: {message}");
    reader.passes(2)?;
    reader.end()?;
    namespace.gone("dataset/data")?;
    namespace.gone("pvc/data")?;
    let volumes = world.kubectl().run(&["get", "pv", "-o", "name"])?;
    ensure!(!volumes.contains(&uid), "its volume is still there: {volumes}");
    for node in ["n1", "n2"] {
        let left = world.cluster.node(world.node(node)?)?.run(&[
            "find",
            "/mnt",
            "/var/lib/millpond",
            "/var/lib/kubelet/plugins",
            "-xdev",
            "-name",
            &format!("*{uid}*"),
        ])?;
        ensure!(left.trim().is_empty(), "left on {node}: {left}");
    }
    Ok(())
}
