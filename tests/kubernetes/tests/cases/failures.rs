//! What users get wrong: a condition and an event name the cause, and the Dataset recovers by itself once it is removed.

use anyhow::{Result, ensure};
use kubernetes_tests::{Dataset, Mount, POOL, World};

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    ("a_missing_secret_is_named_and_heals", missing_secret),
    ("a_wrong_secret_is_named_and_heals", wrong_secret),
    ("a_missing_bucket_is_named_and_heals", missing_bucket),
    ("an_unknown_pool_is_named_and_heals", unknown_pool),
    ("a_bad_glob_is_named", bad_glob),
    (
        "what_one_object_can_say_wrong_is_refused_at_once",
        refused_at_once,
    ),
];

fn missing_secret(world: &World) -> Result<()> {
    let namespace = world.namespace("failures-missing")?;
    let mut bucket = world.s3.bucket("failures-missing")?;
    bucket.put("file", 1, 1_000)?;
    namespace.apply(&Dataset::new("data", Mount::new(&world.s3, &bucket.name, "absent")).yaml())?;
    let (reason, message) = namespace.wait("dataset/data", "Ready", "False")?;
    ensure!(
        reason == "SecretNotFound" && message.contains("absent"),
        "{reason}: {message}"
    );
    namespace.event("dataset/data", "SecretNotFound")?;
    namespace.apply(&world.s3.secret("absent"))?;
    namespace.wait("dataset/data", "Ready", "True").map(drop)
}

fn wrong_secret(world: &World) -> Result<()> {
    let namespace = world.namespace("failures-denied")?;
    let mut bucket = world.s3.bucket("failures-denied")?;
    bucket.put("file", 1, 1_000)?;
    // The right name with the other server's secret.
    let secret = &world.other.credentials().secret_key;
    let wrong = world
        .s3
        .secret("source")
        .replace(&world.s3.credentials().secret_key, secret);
    namespace.apply(&wrong)?;
    namespace.apply(&Dataset::of("data", &bucket).yaml())?;
    let (reason, message) = namespace.wait("dataset/data", "SourceReachable", "False")?;
    ensure!(
        reason == "AccessDenied" && message.contains(&bucket.name),
        "{reason}: {message}"
    );
    ensure!(
        !message.contains(&world.other.credentials().secret_key),
        "the condition shows a secret"
    );
    namespace.event("dataset/data", "AccessDenied")?;
    namespace.apply(&world.s3.secret("source"))?;
    namespace.wait("dataset/data", "Ready", "True").map(drop)
}

fn missing_bucket(world: &World) -> Result<()> {
    let namespace = world.namespace("failures-bucket")?;
    namespace.apply(&world.s3.secret("source"))?;
    namespace.apply(&Dataset::new("data", Mount::new(&world.s3, "failures-bucket", "source")).yaml())?;
    let (reason, message) = namespace.wait("dataset/data", "SourceReachable", "False")?;
    ensure!(
        reason == "SourceNotFound" && message.contains("failures-bucket"),
        "{reason}: {message}"
    );
    namespace.event("dataset/data", "SourceNotFound")?;
    let mut bucket = world.s3.bucket("failures-bucket")?;
    bucket.put("file", 1, 1_000)?;
    namespace.wait("dataset/data", "Ready", "True").map(drop)
}

fn unknown_pool(world: &World) -> Result<()> {
    let (namespace, mut bucket) = world.source("failures-pool")?;
    bucket.put("file", 1, 1_000)?;
    let dataset = Dataset::of("data", &bucket).with("pool: later");
    namespace.apply(&dataset.yaml())?;
    let (reason, message) = namespace.wait("dataset/data", "Ready", "False")?;
    ensure!(
        reason == "PoolNotFound" && message.contains("later"),
        "{reason}: {message}"
    );
    namespace.event("dataset/data", "PoolNotFound")?;
    let later = "apiVersion: millpond.io/v1alpha1\nkind: CachePool\nmetadata: {name: later}\nspec:\n  nodeSelector: \
                 {millpond.test/node: n1}\n  tiers:\n  - {medium: Disk, path: /mnt/later, capacity: 100Mi, minFreePercent: 0}\n";
    world.kubectl().apply(later)?;
    let healed = namespace.wait("dataset/data", "Ready", "True");
    namespace.run(&["delete", "dataset", "data"])?;
    world.kubectl().run(&["delete", "cachepool", "later"])?;
    healed.map(drop)
}

fn bad_glob(world: &World) -> Result<()> {
    let (namespace, mut bucket) = world.source("failures-glob")?;
    bucket.put("file.jpg", 1, 1_000)?;
    let mount =
        |glob: &str| Mount::new(&world.s3, &bucket.name, "source").with(&format!("include: [\"{glob}\"]"));
    namespace.apply(&Dataset::new("data", mount("**/*.[jpg")).yaml())?;
    let (reason, message) = namespace.wait("dataset/data", "Ready", "False")?;
    ensure!(
        reason == "InvalidGlob" && message.contains("**/*.[jpg"),
        "{reason}: {message}"
    );
    namespace.apply(&Dataset::new("data", mount("**/*.jpg")).yaml())?;
    namespace.wait("dataset/data", "Ready", "True").map(drop)
}

fn refused_at_once(world: &World) -> Result<()> {
    let namespace = world.namespace("failures-cel")?;
    let mount = || Mount::new(&world.s3, "bucket", "source");
    let refused = |dataset: Dataset, words: &str| -> Result<()> {
        let said = namespace
            .apply(&dataset.yaml())
            .err()
            .map(|error| format!("{error:#}"))
            .unwrap_or_default();
        ensure!(said.contains(words), "it says {said:?} and not {words:?}");
        Ok(())
    };
    refused(
        Dataset::new("data", mount().with("serviceAccountName: trainer")),
        "secretRef and serviceAccountName exclude each other",
    )?;
    refused(
        Dataset::new("data", mount()).mount(mount()),
        "each needs a name or a path",
    )?;
    refused(Dataset::new("data", mount()).with("replicas: 0"), "spec.replicas")?;
    namespace.apply(
        &Dataset::new("data", mount())
            .with(&format!("pool: {POOL}"))
            .yaml(),
    )?;
    refused(
        Dataset::new("data", mount()).with("pool: another"),
        "pool cannot be changed",
    )
}
