//! Options that change while a Dataset is read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use millpond_cache::Eviction;
use millpond_cache::dataset::{Dataset, FailureKind, MountOptions, ReconfigureError};
use millpond_cache::source::SourceOptions;
use millpond_core::{NoViews, ReadError, Worker};
use origin::{Credentials, Origin, OriginOptions};
use tokio::task::JoinSet;

use crate::dataset::mounts::{at, contents, options, two_buckets};
use crate::dataset::pond::{BUCKET, GUARD, MIB, Pond, eventually, metrics, newest, peek, tree};

fn disk_used(dataset: &Dataset) -> u64 {
    dataset.stats().tiers[0].used_bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn added_and_removed_mounts_make_a_new_generation_and_old_ones_stay_readable() {
    let pond = two_buckets(&[("a", "1")], &[("b", "2"), ("c", "3")]);
    let data = at(pond.source("s3://data"), "/");
    let other = at(pond.source("s3://other"), "/other");
    let dataset = pond.start(options(&pond, vec![data.clone()])).await;
    let first = newest(&dataset).generation;
    let refreshed = dataset
        .reconfigure(options(&pond, vec![data.clone(), other]))
        .await
        .unwrap()
        .expect("a listing");
    assert!(refreshed.changed && refreshed.generation > first);
    let both = tree(&dataset);
    assert_eq!(both.keys().collect::<Vec<_>>(), ["a", "other/b", "other/c"]);

    let second = newest(&dataset).generation;
    dataset.retain_generations(&BTreeSet::from([second]));
    let third = dataset
        .reconfigure(options(&pond, vec![data]))
        .await
        .unwrap()
        .expect("a listing");
    assert_eq!(third.files, 1);
    dataset.retain_generations(&BTreeSet::from([second]));
    assert_eq!(
        peek(&dataset, both["other/b"]).await.unwrap(),
        b"2",
        "from a source that only an older generation names"
    );
    dataset.retain_generations(&BTreeSet::new());
    assert!(matches!(
        peek(&dataset, both["other/c"]).await,
        Err(ReadError::Unknown { .. })
    ));
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_glob_that_changes_is_another_catalog() {
    let pond = two_buckets(&[("a.jpg", "1"), ("b.png", "2")], &[]);
    let all = at(pond.source("s3://data"), "/");
    let some = MountOptions {
        include: vec!["*.jpg".to_owned()],
        ..all.clone()
    };
    let dataset = pond.start(options(&pond, vec![all])).await;
    let refreshed = dataset.reconfigure(options(&pond, vec![some])).await.unwrap();
    assert_eq!(refreshed.expect("a listing").files, 1);
    assert_eq!(
        contents(&dataset).await.into_keys().collect::<Vec<_>>(),
        ["a.jpg"]
    );
    dataset.stop().await;
}

/// A server that checks credentials, and sources with a secret for it.
fn guarded() -> (Origin, impl Fn(&str) -> SourceOptions) {
    let origin = Origin::spawn(OriginOptions {
        credentials: Some(Credentials::new("key", "right")),
        ..OriginOptions::default()
    })
    .expect("an origin");
    origin.create_bucket(BUCKET);
    let endpoint = origin.url();
    let source = move |secret: &str| SourceOptions {
        url: "s3://data".to_owned(),
        endpoint: Some(endpoint.clone()),
        region: Some("us-east-1".to_owned()),
        options: [("aws_access_key_id", "key"), ("aws_secret_access_key", secret)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..SourceOptions::default()
    };
    (origin, source)
}

#[tokio::test(flavor = "multi_thread")]
async fn new_credentials_are_used_from_then_on_and_list_nothing_again() {
    let pond = Pond::new([]);
    let (origin, source) = guarded();
    origin.put(BUCKET, "a", b"1".to_vec());
    origin.put(BUCKET, "b", b"2".to_vec());
    let with = |secret| options(&pond, vec![at(source(secret), "/")]);
    let dataset = pond.start(with("right")).await;
    let listed = origin.counters().lists;
    let objects = tree(&dataset);
    assert_eq!(dataset.reconfigure(with("wrong")).await.unwrap(), None);
    assert!(matches!(
        peek(&dataset, objects["a"]).await,
        Err(ReadError::Unavailable { .. })
    ));
    assert_eq!(dataset.reconfigure(with("right")).await.unwrap(), None);
    assert_eq!(peek(&dataset, objects["b"]).await.unwrap(), b"2");
    assert_eq!(origin.counters().lists, listed);
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_secret_recovers_a_dataset_that_could_not_be_listed() {
    let pond = Pond::new([]);
    let (origin, source) = guarded();
    origin.put(BUCKET, "a", b"1".to_vec());
    let with = |secret| options(&pond, vec![at(source(secret), "/")]);
    let dataset = Dataset::open(with("wrong"), Arc::new(NoViews), &metrics())
        .await
        .unwrap();
    assert_eq!(
        dataset.start().await.unwrap_err().kind(),
        FailureKind::AccessDenied
    );
    let refreshed = dataset.reconfigure(with("right")).await.unwrap();
    assert_eq!(refreshed.expect("a listing").files, 1);
    assert!(dataset.refresh_error().is_none());
    dataset.start().await.unwrap();
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_options_change_nothing() {
    let pond = two_buckets(&[("a", "1")], &[]);
    let data = at(pond.source("s3://data"), "/");
    let good = options(&pond, vec![data.clone()]);
    let dataset = pond.start(good.clone()).await;
    let bad_mount = at(pond.source("nonsense"), "/x");
    let error = dataset
        .reconfigure(options(&pond, vec![data.clone(), bad_mount]))
        .await
        .unwrap_err();
    assert!(matches!(error, ReconfigureError::Mount(_)), "{error}");
    let mut other_name = good.clone();
    other_name.name = "other".to_owned();
    let mut other_directory = good.clone();
    other_directory.cache_directory = pond.cache.path().join("elsewhere");
    for (options, field) in [(other_name, "name"), (other_directory, "cache_directory")] {
        let error = dataset.reconfigure(options).await.unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with(&format!("{field} cannot be changed")),
            "{error}"
        );
    }
    assert_eq!(dataset.reconfigure(good).await.unwrap(), None);
    assert_eq!(dataset.refresh().await.unwrap().files, 1);
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_identity_the_mounts_stay() {
    let pond = two_buckets(&[("a", "1")], &[]);
    let dataset = pond.start(pond.options()).await;
    let mut other = pond.options();
    other.mounts = vec![at(pond.source("s3://other"), "/")];
    let error = dataset.reconfigure(other).await.unwrap_err();
    assert!(
        error.to_string().starts_with("mounts cannot be changed"),
        "{error}"
    );
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_quota_refuses_what_is_new_and_a_larger_one_takes_it() {
    let pond = Pond::small(60, 400_000);
    let quota = |bytes| {
        let mut options = pond.options();
        options.disk_limit.bytes = Some(bytes);
        options
    };
    let dataset = pond.start(quota(64 * MIB)).await;
    let all: Vec<_> = tree(&dataset).into_values().collect();
    // In an order that is not sequential.
    let objects: Vec<_> = (0..60).map(|i| all[i * 37 % 60]).collect();
    for object in &objects[..20] {
        dataset.fetch_to_landing(*object).await.unwrap();
    }
    dataset.reconfigure(quota(4 * MIB)).await.unwrap();
    let before = disk_used(&dataset);
    for object in &objects[20..30] {
        dataset.fetch_to_landing(*object).await.unwrap();
        assert!(!dataset.has(object.id));
    }
    assert!(dataset.has(objects[0].id), "nothing is evicted");
    assert!(disk_used(&dataset) <= before);
    dataset.reconfigure(quota(64 * MIB)).await.unwrap();
    dataset.fetch_to_landing(objects[20]).await.unwrap();
    assert!(dataset.has(objects[20].id));
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_quota_evicts_where_something_is_evicted() {
    let pond = Pond::small(60, 400_000);
    let settings = |bytes, eviction| {
        let mut options = pond.options();
        options.disk_limit.bytes = Some(bytes);
        options.eviction = eviction;
        options
    };
    for before in [Eviction::Never, Eviction::Lru] {
        let dataset = pond.start(settings(64 * MIB, before)).await;
        let objects: Vec<_> = tree(&dataset).into_values().collect();
        for object in &objects {
            dataset.fetch_to_landing(*object).await.unwrap();
            dataset.file_closed(*object, crate::dataset::pond::stream());
        }
        dataset
            .reconfigure(settings(16 * MIB, Eviction::Lru))
            .await
            .unwrap();
        eventually("less than the quota", || async {
            disk_used(&dataset) <= 16 * MIB
        })
        .await;
        let left = objects.iter().filter(|object| dataset.has(object.id)).count();
        assert!((1..60).contains(&left), "{left}");
        // It continues by the new settings.
        for object in &objects {
            peek(&dataset, *object).await.unwrap();
            assert!(disk_used(&dataset) <= 16 * MIB);
        }
        dataset
            .reconfigure(settings(16 * MIB, Eviction::Never))
            .await
            .unwrap();
        let cached: Vec<_> = objects.iter().filter(|object| dataset.has(object.id)).collect();
        for object in &objects {
            peek(&dataset, *object).await.unwrap();
        }
        assert!(cached.iter().all(|object| dataset.has(object.id)));
        dataset.stop().await;
        drop(dataset);
        std::fs::remove_dir_all(pond.cache.path().join("cache")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_interval_takes_effect_immediately() {
    let pond = Pond::small(1, 10);
    let dataset = pond.start(pond.options()).await;
    let mut catalogs = dataset.catalogs();
    catalogs.mark_unchanged();
    let mut options = pond.options();
    options.refresh_interval = Some(Duration::from_millis(20));
    assert_eq!(dataset.reconfigure(options).await.unwrap(), None);
    pond.origin.put(BUCKET, "new", b"1".to_vec());
    tokio::time::timeout(GUARD, catalogs.changed())
        .await
        .expect("a new generation")
        .unwrap();
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_hangs_does_not_block_new_mounts() {
    let pond = two_buckets(&[("a", "1")], &[("b", "2")]);
    let data = at(pond.source("s3://data"), "/");
    let dataset = pond.start(options(&pond, vec![data.clone()])).await;
    let mut unreachable = pond.source("s3://data");
    unreachable.endpoint = Some("http://127.0.0.1:1".to_owned());
    let mut hangs = JoinSet::new();
    {
        let (dataset, options) = (Arc::clone(&dataset), options(&pond, vec![at(unreachable, "/")]));
        hangs.spawn(async move { dataset.reconfigure(options).await });
    }
    eventually("the listing to run", || async {
        dataset.listing().borrow().running
    })
    .await;
    let began = std::time::Instant::now();
    let other = at(pond.source("s3://other"), "/");
    let refreshed = dataset.reconfigure(options(&pond, vec![other])).await.unwrap();
    assert_eq!(refreshed.expect("a listing").files, 1);
    assert!(began.elapsed() < Duration::from_secs(30));
    assert!(
        hangs.join_next().await.unwrap().unwrap().is_ok(),
        "it listed the current mounts"
    );
    assert_eq!(contents(&dataset).await["b"], "2");
    dataset.stop().await;
}
