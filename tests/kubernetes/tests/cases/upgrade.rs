//! Objects that are there while what they are changes.

use anyhow::{Context, Result, ensure};
use kubernetes_tests::{Dataset, Reader, World, workspace};
use serde_json::Value;

use crate::Case;

pub(crate) const ALONE: &[Case] = &[("objects_stay_while_their_kind_is_upgraded", upgrade_of_kinds)];

const KIND: &str = "datasets.millpond.io";

/// A field that the older kind does not have.
const FIELD: &str = "prefetch";

fn upgrade_of_kinds(world: &World) -> Result<()> {
    let kubectl = world.kubectl();
    let mut older = kubectl.json(&["crd", KIND])?;
    let fields = older.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties");
    let fields = fields
        .and_then(Value::as_object_mut)
        .context("the kind has no fields")?;
    fields
        .remove(FIELD)
        .with_context(|| format!("the kind has no field {FIELD}"))?;
    kubectl.run_with(&["replace", "-f", "-"], &older.to_string())?;
    let outcome = on_the_older_kind(world);
    // Whatever became of it: the cases after this one need the kind as it is.
    let crds = workspace().join("deploy/crds");
    let crds = crds.to_str().context("a path of ours is UTF-8")?;
    kubectl.run(&["apply", "--server-side", "--force-conflicts", "-f", crds])?;
    let (namespace, bucket) = outcome?;
    let reader = Reader::of(&namespace, "later", "n1", "data", &bucket)?;
    namespace.run(&[
        "patch",
        "dataset",
        "data",
        "--type=merge",
        "-p",
        &format!("{{\"spec\":{{\"{FIELD}\":\"OnCreate\"}}}}"),
    ])?;
    namespace.wait("dataset/data", "Warm", "True")?;
    reader.passes(1)?;
    let first = Reader::running(&namespace, "first");
    first.passes(2)
}

/// A Dataset of the older kind and a pod that reads it.
fn on_the_older_kind(world: &World) -> Result<(kubernetes_tests::Namespace, kubernetes_tests::Bucket<'_>)> {
    let (namespace, mut bucket) = world.source("upgrade-kinds")?;
    bucket.put_many("small", 20, 50_000)?;
    let dataset = Dataset::of("data", &bucket);
    let refused = namespace.apply(&dataset.clone().with("prefetch: OnCreate").yaml());
    ensure!(refused.is_err(), "the older kind has the field");
    namespace.apply(&dataset.yaml())?;
    namespace.wait("dataset/data", "Ready", "True")?;
    Reader::of(&namespace, "first", "n1", "data", &bucket)?.passes(1)?;
    Ok((namespace, bucket))
}
