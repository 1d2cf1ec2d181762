//! Listing a source: hostile keys, many keys, faults.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use millpond_cache::fetch::{FetchError, Priority, Request};
use millpond_cache::listing::{ListError, ListOptions, ListedObject, Listing, Refused, RefusedBecause};
use origin::{Body, Fault, Kind, Rule};
use proptest::prelude::*;

use crate::sources::rig::{BUCKET, Rig, content, long_timeouts, open, rig, rig_below};

async fn all(mut listing: Listing) -> Result<(BTreeMap<String, ListedObject>, Vec<Refused>), ListError> {
    let mut objects = BTreeMap::new();
    let mut refused = Vec::new();
    while let Some(batch) = listing.next().await? {
        for object in batch.objects {
            let twice = objects.insert(object.key.clone(), object);
            assert!(twice.is_none(), "{twice:?} listed twice");
        }
        refused.extend(batch.refused);
    }
    Ok((objects, refused))
}

async fn keys(rig: &Rig) -> BTreeSet<String> {
    let (objects, refused) = all(rig.list()).await.unwrap();
    assert!(refused.is_empty(), "{refused:?}");
    objects.into_keys().collect()
}

/// Puts objects whose content is their key.
fn put_all(rig: &Rig, keys: &BTreeSet<String>) {
    let objects = keys
        .iter()
        .map(|key| (key.clone().into_bytes(), Body::from(key.clone().into_bytes())));
    rig.server.put_all(BUCKET, objects);
}

/// Fetches an object as it was listed.
async fn read(rig: &Rig, object: &ListedObject) -> Result<Vec<u8>, FetchError> {
    let request = Request {
        key: object.key.clone(),
        validator: object.validator.clone(),
        size_bytes: object.size_bytes,
        range: 0..object.size_bytes,
        priority: Priority::Reader,
    };
    rig.origin.fetch(request).await.map(|chunks| chunks.concat())
}

#[tokio::test]
async fn hostile_keys_are_listed_as_they_are_and_never_read_as_others() {
    let rig = rig(long_timeouts());
    let can_be_asked_for = [
        "a",
        "a b",
        "a%2Fb",
        "a%20b",
        "..a/b.",
        "dir",
        "dir/file",
        "é/€",
        "q?x=1&y#z",
        "+",
        "a\\b",
        "\u{85}",
        "<&>\"'",
    ];
    let cannot = [
        "../x",
        "a/../x",
        ".",
        "..",
        "a/.",
        "a/./b",
        "/abs",
        "//",
        "/",
        "a//b",
        "a/",
        "dir/sub//",
        "x/../../y",
    ];
    let long = "n".repeat(300);
    let controls = ["new\nline", "tab\t", "\u{1}", "a/\u{7f}/b", "cr\r"];
    for key in can_be_asked_for
        .iter()
        .chain(&cannot)
        .chain(&controls)
        .chain(&[long.as_str()])
    {
        rig.server.put(BUCKET, key, key.as_bytes().to_vec());
    }
    rig.server.put(BUCKET, b"bytes\xff", vec![1_u8]);
    rig.server.put(BUCKET, b"dir\xfe/x", vec![1_u8]);

    let (objects, refused) = all(rig.list()).await.unwrap();
    let expected: BTreeSet<&str> = can_be_asked_for
        .iter()
        .chain(&cannot)
        .copied()
        .chain([long.as_str()])
        .collect();
    assert_eq!(
        objects.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        expected
    );
    for reason in [RefusedBecause::CannotBeAskedFor, RefusedBecause::NotUnicode] {
        let count = refused.iter().filter(|refused| refused.reason == reason).count();
        let expected = if reason == RefusedBecause::NotUnicode {
            2
        } else {
            controls.len()
        };
        assert_eq!(count, expected, "{refused:?}");
    }
    for (key, object) in &objects {
        match read(&rig, object).await {
            Ok(bytes) => assert_eq!(bytes, key.as_bytes(), "{key:?} gave another object's bytes"),
            Err(error) => {
                assert!(
                    matches!(error, FetchError::Unavailable { .. }),
                    "{key:?}: {error}"
                );
                assert!(cannot.contains(&key.as_str()), "{key:?}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn only_what_lies_below_the_prefix_is_listed() {
    let rig = rig_below("d/e", long_timeouts());
    for key in ["d/e", "d/e/", "d/e/f", "d/e/g/h", "d/ee", "d/f", "e/f"] {
        rig.server.put(BUCKET, key, vec![0_u8; 3]);
    }
    assert_eq!(rig.source.prefix(), "d/e/");
    assert_eq!(keys(&rig).await, ["d/e/f", "d/e/g/h"].map(str::to_owned).into());
}

#[tokio::test]
async fn a_flat_bucket_is_listed_page_by_page() {
    let rig = rig(long_timeouts());
    let expected: BTreeSet<String> = (0..3_500).map(|n| format!("{n:05}")).collect();
    put_all(&rig, &expected);
    assert_eq!(keys(&rig).await, expected);
    assert_eq!(rig.server.counters().lists, 4);
}

#[tokio::test]
async fn many_small_directories_are_few_requests() {
    let rig = rig(long_timeouts());
    let expected: BTreeSet<String> = (0..2_500).map(|n| format!("top/{n:04}/file")).collect();
    put_all(&rig, &expected);
    assert_eq!(keys(&rig).await, expected);
    let lists = rig.server.counters().lists;
    assert!(lists < 20, "{lists} requests");
}

#[tokio::test]
async fn large_directories_are_listed_side_by_side() {
    let rig = rig(long_timeouts());
    let expected: BTreeSet<String> = (0..4_000)
        .map(|n| format!("top/{}/{}/{n}", n % 4, n % 3))
        .chain(["top/x".to_owned()])
        .collect();
    put_all(&rig, &expected);
    let listing = rig.list();
    let progress = listing.progress();
    let (objects, _) = all(listing).await.unwrap();
    assert_eq!(objects.into_keys().collect::<BTreeSet<_>>(), expected);
    let progress = *progress.borrow();
    assert_eq!((progress.objects, progress.prefixes_waiting), (4_001, 0));
    assert_eq!(progress.prefixes_done, 1 + 1 + 4 + 12);
}

#[tokio::test]
async fn a_listing_gets_past_faults_and_is_complete() {
    let rig = rig(long_timeouts());
    let expected: BTreeSet<String> = (0..3_000).map(|n| format!("{}/{n}", n % 20)).collect();
    put_all(&rig, &expected);
    let lists = |fault, fraction| Rule::new(fault).on(&[Kind::List]).fraction(fraction);
    rig.server.faults().add(lists(Fault::SlowDown, 0.2));
    rig.server.faults().add(lists(Fault::Gone, 0.15));
    rig.server
        .faults()
        .add(lists(Fault::Truncate { after: 300 }, 0.1));
    assert_eq!(keys(&rig).await, expected);
    assert!(rig.metrics.retries.get() > 0);
}

#[tokio::test]
async fn a_partial_listing_is_an_error() {
    let rig = rig(long_timeouts());
    put_all(&rig, &(0..2_500).map(|n| format!("{n:04}")).collect());
    rig.server
        .faults()
        .add(Rule::new(Fault::Gone).on(&[Kind::List]).skip(1));
    let options = ListOptions {
        page_deadline: Duration::from_millis(500),
        ..ListOptions::default()
    };
    let listing = Listing::start(Arc::clone(&rig.source), options, rig.metrics.clone());
    let error = all(listing).await.unwrap_err();
    assert!(matches!(error, ListError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_missing_or_denied_bucket_is_an_error_of_its_kind() {
    let rig = rig(long_timeouts());
    let denied = Listing::start(
        open(&rig.server, "", "wrong"),
        ListOptions::default(),
        rig.metrics.clone(),
    );
    let error = all(denied).await.unwrap_err();
    assert!(matches!(error, ListError::Denied { .. }), "{error}");
    let options = millpond_cache::source::SourceOptions {
        url: "s3://no-such-bucket/x".to_owned(),
        endpoint: Some(rig.server.url()),
        options: [("aws_access_key_id", "key"), ("aws_secret_access_key", "secret")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..Default::default()
    };
    let source = millpond_cache::source::Source::open(&options).unwrap();
    let missing = Listing::start(Arc::new(source), ListOptions::default(), rig.metrics.clone());
    let error = all(missing).await.unwrap_err();
    assert!(matches!(error, ListError::NotFound { .. }), "{error}");
    assert!(error.to_string().contains("NoSuchBucket"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_no_webdav_server_cannot_be_listed() {
    let rig = rig(long_timeouts());
    let options = millpond_cache::source::SourceOptions {
        url: rig.server.url(),
        ..Default::default()
    };
    let source = millpond_cache::source::Source::open(&options).unwrap();
    let options = ListOptions {
        page_deadline: Duration::from_secs(5),
        ..ListOptions::default()
    };
    let error = all(Listing::start(Arc::new(source), options, rig.metrics.clone()))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ListError::Unsupported { .. } | ListError::Denied { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn sizes_times_and_validators_are_the_sources_own() {
    let rig = rig(long_timeouts());
    let etag = rig.server.put(BUCKET, "a", content(1, 1_234));
    let (objects, _) = all(rig.list()).await.unwrap();
    let object = &objects["a"];
    assert_eq!(object.size_bytes, 1_234);
    assert_eq!(
        object.validator,
        millpond_core::Validator::ETag(format!("\"{etag}\""))
    );
    assert!(object.modified.secs > 1_600_000_000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_is_listed_completely(expected in proptest::collection::btree_set("[ab/.~%]{1,6}", 0..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let rig = rig(long_timeouts());
            put_all(&rig, &expected);
            let (objects, refused) = all(rig.list()).await.unwrap();
            assert_eq!(objects.keys().cloned().collect::<BTreeSet<_>>(), expected);
            assert!(refused.is_empty());
            for (key, object) in &objects {
                if let Ok(bytes) = read(&rig, object).await {
                    assert_eq!(bytes, key.as_bytes());
                }
            }
        });
    }
}
