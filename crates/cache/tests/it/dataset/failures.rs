//! Sources that fail.

use std::time::Duration;

use millpond_cache::dataset::{Dataset, RefreshError};
use millpond_core::{NoViews, ReadError, Worker};
use origin::{Fault, Kind, Rule};

use crate::dataset::pond::{GUARD, MIB, Pond, metrics, peek, stream, tree};

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_source_is_an_error_by_the_deadline_and_recovers() {
    let pond = Pond::new([("small".to_owned(), 50_000), ("large".to_owned(), 10 * MIB)]);
    let mut options = pond.options();
    options.origin.deadline = Duration::from_millis(300);
    options.origin.min_bytes_per_second = 64 * MIB;
    let dataset = pond.start(options).await;
    let objects = tree(&dataset);
    pond.origin.disconnect();
    for key in ["small", "large"] {
        let failed = tokio::time::timeout(GUARD, peek(&dataset, objects[key]))
            .await
            .expect("no hang");
        assert!(matches!(failed, Err(ReadError::Unavailable { .. })), "{failed:?}");
    }
    pond.origin.reconnect();
    for key in ["small", "large"] {
        pond.check(&dataset, key, objects[key], 128 << 10).await;
    }
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_responses_never_become_wrong_bytes() {
    for fault in [
        Fault::Truncate { after: 30_000 },
        Fault::Reset { after: 30_000 },
        Fault::SlowDown,
        Fault::Gone,
    ] {
        let pond = Pond::new([("small".to_owned(), 50_000), ("large".to_owned(), 12 * MIB)]);
        let dataset = pond.start(pond.options()).await;
        let objects = tree(&dataset);
        pond.origin
            .faults()
            .add(Rule::new(fault).on(&[Kind::Get]).times(3));
        for (key, object) in &objects {
            pond.check(&dataset, key, *object, 256 << 10).await;
            pond.check(&dataset, key, *object, 256 << 10).await;
        }
        dataset.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_other_versions_gives_no_bytes_at_all() {
    let pond = Pond::new([("small".to_owned(), 50_000), ("large".to_owned(), 10 * MIB)]);
    let mut options = pond.options();
    options.origin.deadline = Duration::from_millis(300);
    options.origin.min_bytes_per_second = 64 * MIB;
    let dataset = pond.start(options).await;
    let objects = tree(&dataset);
    let rule = pond
        .origin
        .faults()
        .add(Rule::new(Fault::WrongEtag).on(&[Kind::Get]));
    for object in objects.values() {
        assert!(peek(&dataset, *object).await.is_err());
    }
    pond.origin.faults().remove(rule);
    for (key, object) in &objects {
        pond.check(&dataset, key, *object, 1 << 20).await;
    }
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_catalog_an_unreachable_source_is_an_error() {
    let pond = Pond::small(1, 10);
    pond.origin.disconnect();
    let mut options = pond.options();
    options.listing.page_deadline = Duration::from_millis(200);
    let dataset = Dataset::open(options, std::sync::Arc::new(NoViews), &metrics())
        .await
        .unwrap();
    assert!(matches!(dataset.start().await, Err(RefreshError::List { .. })));
    assert!(dataset.catalogs().borrow().is_none());
    pond.origin.reconnect();
    dataset.start().await.unwrap();
    assert_eq!(tree(&dataset).len(), 1);
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_stop_nothing_is_served_and_nothing_runs() {
    let pond = Pond::new([("large".to_owned(), 64 * MIB)]);
    let dataset = pond.start(pond.options()).await;
    let object = tree(&dataset)["large"];
    pond.origin.set_bandwidth(Some(4 * MIB));
    let stream = stream();
    dataset.read(object, stream, 0..4_096).await.unwrap();
    tokio::time::timeout(GUARD, dataset.stop())
        .await
        .expect("the stop ends requests in flight");
    assert!(matches!(
        dataset.read(object, stream, 0..4_096).await,
        Err(ReadError::Stopping)
    ));
}
