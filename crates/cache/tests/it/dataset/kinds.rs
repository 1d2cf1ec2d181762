//! Kinds of source failures, by what a user does about them.

use std::sync::Arc;
use std::time::Duration;

use millpond_cache::dataset::{Dataset, FailureKind, MountOptions};
use millpond_cache::source::{Environment, SourceOptions};
use millpond_core::NoViews;
use origin::{Credentials, Origin, OriginOptions};

use crate::dataset::mounts::{at, options};
use crate::dataset::pond::{BUCKET, Pond, metrics};

/// The failure of a Dataset whose second mount is this one.
async fn failure(pond: &Pond, mount: MountOptions) -> (FailureKind, Option<usize>, String) {
    let mut options = options(pond, vec![at(pond.source("s3://data"), "/"), mount]);
    options.environment = Environment::isolated(vec![pond.cache.path().to_owned()]);
    options.listing.page_deadline = Duration::from_millis(300);
    let dataset = match Dataset::open(options, Arc::new(NoViews), &metrics()).await {
        Ok(dataset) => dataset,
        Err(error) => {
            let index = error.mount().map(|mount| mount.index);
            return (error.kind(), index, error.describe());
        }
    };
    let error = dataset.start().await.expect_err("it fails");
    let kept = dataset.refresh_error().expect("it is kept");
    assert_eq!(kept.kind(), error.kind());
    dataset.stop().await;
    let index = error.mount().map(|mount| mount.index);
    (error.kind(), index, error.describe())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_of_a_source_has_its_kind_and_names_its_mount() {
    let pond = Pond::small(1, 10);
    let guarded = Origin::spawn(OriginOptions {
        credentials: Some(Credentials::new("key", "right")),
        ..OriginOptions::default()
    })
    .unwrap();
    guarded.create_bucket(BUCKET);
    let with_secret = |secret: &str| {
        let mut source = SourceOptions {
            endpoint: Some(guarded.url()),
            anonymous: false,
            ..pond.source("s3://data")
        };
        for (name, value) in [("aws_access_key_id", "key"), ("aws_secret_access_key", secret)] {
            source.options.insert(name.to_owned(), value.to_owned());
        }
        source
    };
    let mut unknown_option = pond.source("s3://data");
    unknown_option
        .options
        .insert("aws_colour".to_owned(), "blue".to_owned());
    let mut unreachable = pond.source("s3://data");
    unreachable.endpoint = Some("http://127.0.0.1:1".to_owned());
    let directory = |path: &str| SourceOptions {
        url: format!("file://{path}"),
        ..SourceOptions::default()
    };
    let missing = pond.cache.path().join("nowhere");

    let cases = [
        (with_secret("wrong"), FailureKind::AccessDenied, "403"),
        (
            pond.source("s3://no-such-bucket"),
            FailureKind::SourceNotFound,
            "NoSuchBucket",
        ),
        (
            directory(missing.to_str().unwrap()),
            FailureKind::SourceNotFound,
            "mounts[1]",
        ),
        (
            directory("/etc"),
            FailureKind::AccessDenied,
            "not among the directories",
        ),
        (pond.source("ftp://data"), FailureKind::InvalidSource, "not known"),
        (unknown_option, FailureKind::InvalidSource, "aws_colour"),
        (unreachable, FailureKind::Unreachable, "mounts[1]"),
    ];
    for (source, kind, words) in cases {
        let shown = source.url.clone();
        let (found, index, text) = failure(&pond, at(source, "/second")).await;
        assert_eq!((found, index), (kind, Some(1)), "{shown}: {text}");
        assert!(text.contains(words) && !text.contains("wrong"), "{shown}: {text}");
    }
    let bad_glob = MountOptions {
        include: vec!["[".to_owned()],
        ..at(pond.source("s3://data"), "/second")
    };
    let (kind, index, text) = failure(&pond, bad_glob).await;
    assert_eq!((kind, index), (FailureKind::InvalidSource, Some(1)));
    assert!(text.contains("include") && text.contains("\"[\""), "{text}");
}
