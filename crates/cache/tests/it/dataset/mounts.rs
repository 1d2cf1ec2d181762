//! Several sources in one tree: each statement of `docs/semantics.md` about them is a test here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use millpond_cache::dataset::{
    Dataset, DatasetOptions, LoadOptions, LoadProgress, MountOptions, RefreshError,
};
use millpond_cache::source::SourceOptions;
use millpond_catalog::Catalog;
use millpond_core::{NoViews, Worker};
use origin::{Credentials, Fault, Kind, Origin, OriginOptions, Rule};
use tokio::sync::watch;

use crate::dataset::pond::{BUCKET, Pond, metrics, newest, peek, tree};

pub(crate) const OTHER: &str = "other";

/// A Dataset of what `mounts` name, in the pond's cache directory.
pub(crate) fn options(pond: &Pond, mounts: Vec<MountOptions>) -> DatasetOptions {
    DatasetOptions {
        mounts,
        identity: Some("uid".to_owned()),
        ..pond.options()
    }
}

pub(crate) fn at(source: SourceOptions, path: &str) -> MountOptions {
    MountOptions {
        path: path.to_owned(),
        ..MountOptions::at_root(source)
    }
}

/// A pond whose server has a second bucket with these objects: key and content.
pub(crate) fn two_buckets(objects: &[(&str, &str)], others: &[(&str, &str)]) -> Pond {
    let pond = Pond::new([]);
    pond.origin.create_bucket(OTHER);
    for (bucket, objects) in [(BUCKET, objects), (OTHER, others)] {
        for (key, content) in objects {
            pond.origin.put(bucket, key, content.as_bytes().to_vec());
        }
    }
    pond
}

/// All files and the first bytes of each.
pub(crate) async fn contents(dataset: &Dataset) -> BTreeMap<String, String> {
    let mut contents = BTreeMap::new();
    for (path, object) in tree(dataset) {
        let bytes = peek(dataset, object).await.expect("readable");
        contents.insert(path, String::from_utf8(bytes).expect("text"));
    }
    contents
}

fn expected(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    let own = |(path, content): &(&str, &str)| ((*path).to_owned(), (*content).to_owned());
    files.iter().map(own).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_source_is_shown_below_its_path() {
    let pond = two_buckets(
        &[("a", "1"), ("x/b", "2")],
        &[("c", "3"), ("deep/d", "4"), ("out", "5")],
    );
    let mounts = vec![
        at(pond.source("s3://data"), "/train/all"),
        at(pond.source("s3://other/deep"), "/val"),
        at(pond.source("s3://other"), "/val/more"),
    ];
    let dataset = pond.start(options(&pond, mounts)).await;
    let files = expected(&[
        ("train/all/a", "1"),
        ("train/all/x/b", "2"),
        ("val/d", "4"),
        ("val/more/c", "3"),
        ("val/more/deep/d", "4"),
        ("val/more/out", "5"),
    ]);
    assert_eq!(contents(&dataset).await, files);
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_files_at_one_path_the_deeper_mounts_wins() {
    let pond = two_buckets(&[("train/x", "outer"), ("train/y", "only")], &[("x", "deeper")]);
    let mounts = vec![
        at(pond.source("s3://data"), "/"),
        at(pond.source("s3://other"), "/train"),
    ];
    let dataset = pond.start(options(&pond, mounts)).await;
    let files = expected(&[("train/x", "deeper"), ("train/y", "only")]);
    assert_eq!(contents(&dataset).await, files);
    let refused = dataset.stats().catalog.unwrap().refused;
    assert_eq!(refused, BTreeMap::from([("duplicate".to_owned(), 1)]));
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_files_at_equally_deep_paths_the_first_mounts_wins() {
    let pond = two_buckets(&[("x", "data")], &[("x", "other"), ("z", "other")]);
    for (first, second, wins) in [("data", "other", "data"), ("other", "data", "other")] {
        let mounts = vec![
            at(pond.source(&format!("s3://{first}")), "/"),
            at(pond.source(&format!("s3://{second}")), "/"),
        ];
        let dataset = pond.start(options(&pond, mounts)).await;
        assert_eq!(contents(&dataset).await, expected(&[("x", wins), ("z", "other")]));
        dataset.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_where_another_source_has_a_directory_is_left_out() {
    let pond = two_buckets(&[("train", "a file"), ("kept", "1")], &[("x", "2")]);
    let mounts = vec![
        at(pond.source("s3://data"), "/"),
        at(pond.source("s3://other"), "/train"),
    ];
    let dataset = pond.start(options(&pond, mounts)).await;
    assert_eq!(
        contents(&dataset).await,
        expected(&[("kept", "1"), ("train/x", "2")])
    );
    let refused = dataset.stats().catalog.unwrap().refused;
    assert_eq!(refused, BTreeMap::from([("is-directory".to_owned(), 1)]));
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn include_and_exclude_choose_by_the_path_below_the_source() {
    let pond = two_buckets(
        &[
            ("p/a.jpg", "1"),
            ("p/x/b.jpg", "2"),
            ("p/x/c.png", "3"),
            ("p/bad/d.jpg", "4"),
        ],
        &[],
    );
    let mount = MountOptions {
        include: vec!["**/*.jpg".to_owned()],
        exclude: vec!["bad/**".to_owned()],
        ..at(pond.source("s3://data/p"), "/")
    };
    let dataset = pond.start(options(&pond, vec![mount])).await;
    assert_eq!(
        contents(&dataset).await,
        expected(&[("a.jpg", "1"), ("x/b.jpg", "2")])
    );
    assert!(dataset.stats().catalog.unwrap().refused.is_empty());
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_source_at_two_paths_shares_its_objects() {
    let pond = two_buckets(&[("a", "1")], &[]);
    let mounts = vec![
        at(pond.source("s3://data"), "/one"),
        at(pond.source("s3://data"), "/two"),
    ];
    let dataset = pond.start(options(&pond, mounts)).await;
    let objects = tree(&dataset);
    assert_eq!(objects["one/a"].id, objects["two/a"].id);
    for object in objects.values() {
        dataset.fetch_to_landing(*object).await.unwrap();
    }
    assert_eq!(pond.counters().gets, 1, "one copy, fetched once");
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_file_names_its_own_source() {
    let pond = two_buckets(&[("a", "1")], &[("b", "2")]);
    let mounts = vec![
        at(pond.source("s3://data"), "/"),
        at(pond.source("s3://other"), "/b"),
    ];
    let dataset = pond.start(options(&pond, mounts)).await;
    let file = newest(&dataset);
    let catalog = Catalog::open(&file.image, &file.index).unwrap();
    let endpoint = pond.origin.url();
    for (path, bucket) in [("a", "data"), ("b/b", "other")] {
        let nid = millpond_catalog::Nid(tree(&dataset)[path].inode.0);
        let shown = catalog
            .image()
            .xattr(nid, b"user.millpond.source")
            .unwrap()
            .unwrap();
        assert_eq!(
            std::str::from_utf8(shown).unwrap(),
            format!("s3://{bucket}/?endpoint={endpoint}")
        );
    }
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_source_is_asked_with_its_own_credentials() {
    let pond = Pond::new([]);
    let mut origins = Vec::new();
    let mut mounts = Vec::new();
    for number in 0..2 {
        let (key, secret) = (format!("key-{number}"), format!("secret-{number}"));
        let origin = Origin::spawn(OriginOptions {
            credentials: Some(Credentials::new(key.clone(), secret.clone())),
            ..OriginOptions::default()
        })
        .unwrap();
        origin.create_bucket(BUCKET);
        origin.put(BUCKET, "file", format!("of {number}").into_bytes());
        let mut source = SourceOptions {
            endpoint: Some(origin.url()),
            anonymous: false,
            ..pond.source("s3://data")
        };
        source.options.insert("aws_access_key_id".to_owned(), key);
        source.options.insert("aws_secret_access_key".to_owned(), secret);
        mounts.push(at(source, &format!("/{number}")));
        origins.push(origin);
    }
    let dataset = pond.start(options(&pond, mounts)).await;
    assert_eq!(
        contents(&dataset).await,
        expected(&[("0/file", "of 0"), ("1/file", "of 1")])
    );
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_source_that_fails_makes_no_catalog_of_the_others() {
    let pond = two_buckets(&[("a", "1")], &[("b", "2")]);
    let mut named = at(pond.source("s3://other"), "/other");
    named.name = Some("second".to_owned());
    let mounts = vec![at(pond.source("s3://data"), "/"), named];
    let mut options = options(&pond, mounts);
    options.listing.page_deadline = Duration::from_millis(300);
    let dataset = pond.start(options).await;
    let before = newest(&dataset).generation;
    pond.origin.put(BUCKET, "new", b"3".to_vec());
    pond.origin.faults().add(
        Rule::new(Fault::Gone)
            .on(&[Kind::List])
            .under(OTHER.as_bytes().to_vec()),
    );
    let error = dataset.refresh().await.unwrap_err();
    let RefreshError::List { mount, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!((mount.index, mount.name.as_deref()), (1, Some("second")));
    assert_eq!(mount.url, "s3://other/");
    assert_eq!(newest(&dataset).generation, before, "the old catalog stays");
    pond.origin.faults().clear();
    assert!(dataset.refresh().await.unwrap().changed);
    assert!(tree(&dataset).contains_key("new"));
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_of_several_sources_is_of_all_of_them() {
    let pond = two_buckets(&[("a", "1")], &[("b", "2"), ("c", "3")]);
    let mounts = vec![
        at(pond.source("s3://data"), "/"),
        at(pond.source("s3://other"), "/o"),
    ];
    let dataset = pond.start(options(&pond, mounts)).await;
    let progress = watch::Sender::new(LoadProgress::default());
    let end = dataset.load(LoadOptions::default(), &progress).await.unwrap();
    assert_eq!((end.files_done, end.failed), (3, 0));
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_the_same_mounts_shows_the_same_catalog() {
    let pond = two_buckets(&[("a", "1")], &[("b", "2")]);
    let mounts = || {
        vec![
            at(pond.source("s3://data"), "/"),
            at(pond.source("s3://other"), "/o"),
        ]
    };
    let dataset = pond.start(options(&pond, mounts())).await;
    let first = newest(&dataset).generation;
    dataset.retain_generations(&BTreeSet::from([first]));
    let old = tree(&dataset);
    dataset.stop().await;
    drop(dataset);

    let again = Dataset::open(options(&pond, mounts()), Arc::new(NoViews), &metrics())
        .await
        .unwrap();
    assert_eq!(newest(&again).generation, first);
    assert_eq!(peek(&again, old["o/b"]).await.unwrap(), b"2");
    again.stop().await;
    drop(again);

    // With other mounts the old generation is only for views that have it mounted.
    let other = pond
        .start(options(&pond, vec![at(pond.source("s3://other"), "/")]))
        .await;
    assert!(newest(&other).generation > first);
    assert_eq!(contents(&other).await, expected(&[("b", "2")]));
    assert_eq!(
        peek(&other, old["o/b"]).await.unwrap(),
        b"2",
        "the source is still known"
    );
    other.stop().await;
}
