//! Datasets that are edited while pods read them.

use std::time::Duration;

use anyhow::{Result, ensure};
use kubernetes_tests::{Dataset, Mount, Reader, World, eventually};

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    (
        "a_new_mount_is_seen_by_live_pods_and_by_the_next_snapshot",
        edited_mounts,
    ),
    ("a_rotated_secret_is_used_without_a_restart", rotated_secret),
];

fn edited_mounts(world: &World) -> Result<()> {
    let namespace = world.namespace("changes-mounts")?;
    let (mut one, mut two) = (world.s3.bucket("changes-one")?, world.s3.bucket("changes-two")?);
    one.put_many("x", 5, 10_000)?;
    two.put_many("y", 5, 20_000)?;
    namespace.apply(&world.s3.secret("source"))?;
    let first = || Mount::new(&world.s3, &one.name, "source").named("one");
    let second = || Mount::new(&world.s3, &two.name, "source").named("two");
    for (name, view) in [("live", "view: Live"), ("snapshot", "view: Snapshot")] {
        namespace.apply(&Dataset::new(name, first()).with(view).yaml())?;
    }
    let mut readers = Vec::new();
    for name in ["live", "snapshot"] {
        namespace.wait(&format!("dataset/{name}"), "Ready", "True")?;
        let reader = Reader::start(
            &namespace,
            name,
            "n1",
            &Reader::claim(name),
            &one.sums("/data/one"),
        )?;
        reader.passes(1)?;
        readers.push(reader);
    }
    for (name, view) in [("live", "view: Live"), ("snapshot", "view: Snapshot")] {
        namespace.apply(&Dataset::new(name, first()).mount(second()).with(view).yaml())?;
    }
    eventually(
        "the running pod with a live view to see it",
        Duration::from_secs(60),
        || readers[0].exec(&["sha256sum", "/data/two/y/00000"]).map(Some),
    )?;
    // By now the other's next pod sees it as well, and its first one still does not.
    let sums = one.sums("/data/one") + &two.sums("/data/two");
    let next = eventually("the new generation", Duration::from_secs(60), || {
        let files = namespace.json(&["dataset/snapshot"])?;
        Ok(files
            .pointer("/status/files")
            .is_some_and(|files| files == 10)
            .then_some(()))
    })
    .and_then(|()| Reader::start(&namespace, "next", "n1", &Reader::claim("snapshot"), &sums))?;
    next.passes(1)?;
    ensure!(
        readers[1].exec(&["ls", "/data/two"]).is_err(),
        "a snapshot has changed"
    );
    readers[1].passes(1)
}

fn rotated_secret(world: &World) -> Result<()> {
    let namespace = world.namespace("changes-secret")?;
    let (mut one, mut other) = (
        world.s3.bucket("changes-rotated")?,
        world.other.bucket("changes-rotated")?,
    );
    for bucket in [&mut one, &mut other] {
        bucket.put_many("x", 5, 10_000)?;
    }
    namespace.apply(&world.s3.secret("source"))?;
    // The endpoint is the other server's: the credentials are wrong until they are rotated.
    namespace.apply(&Dataset::new("data", Mount::new(&world.other, &other.name, "source")).yaml())?;
    namespace.wait("dataset/data", "SourceReachable", "False")?;
    namespace.apply(&world.other.secret("source"))?;
    namespace.wait("dataset/data", "Ready", "True")?;
    let reader = Reader::start(
        &namespace,
        "reader",
        "n1",
        &Reader::claim("data"),
        &other.sums("/data"),
    )?;
    reader.passes(1)
}
