//! Several Datasets in one process.

use std::sync::Arc;

use millpond_cache::dataset::{Dataset, DatasetOptions};
use millpond_cache::fetch::SharedBudget;
use millpond_cache::metrics::WorkerMetrics;
use millpond_core::NoViews;
use origin::{Fault, Kind, Rule};
use prometheus::{Registry, TextEncoder};
use tokio::task::JoinSet;

use crate::dataset::pond::{MIB, Pond, eventually, peek, tree};

async fn open(pond: &Pond, name: &str, metrics: &WorkerMetrics) -> Arc<Dataset> {
    let options = DatasetOptions {
        name: name.to_owned(),
        namespace: "team".to_owned(),
        ..pond.options()
    };
    let dataset = Dataset::open(options, Arc::new(NoViews), metrics)
        .await
        .expect("open");
    dataset.start().await.expect("a catalog");
    dataset
}

/// The value of one line of `/metrics`.
fn shown(registry: &Registry, line: &str) -> Option<f64> {
    let text = TextEncoder::new()
        .encode_to_string(&registry.gather())
        .expect("text");
    let found = text.lines().find_map(|shown| shown.strip_prefix(line));
    found.map(|value| value.trim().parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_datasets_share_one_registry_and_each_removes_its_own_metrics() {
    let registry = Registry::new();
    let metrics = WorkerMetrics::new(&registry).unwrap();
    let (first, second) = (Pond::small(3, 1_000), Pond::small(5, 2_000));
    let one = open(&first, "one", &metrics).await;
    let two = open(&second, "two", &metrics).await;
    for object in tree(&two).values() {
        peek(&two, *object).await.unwrap();
    }
    one.update_gauges();
    two.update_gauges();
    let files = |name: &str| {
        let line = format!("millpond_catalog_files{{dataset=\"{name}\",namespace=\"team\"}}");
        shown(&registry, &line)
    };
    let bytes = |name: &str| {
        let line = format!("millpond_origin_bytes_total{{dataset=\"{name}\",namespace=\"team\"}}");
        shown(&registry, &line)
    };
    assert_eq!((files("one"), files("two")), (Some(3.0), Some(5.0)));
    assert_eq!((bytes("one"), bytes("two")), (Some(0.0), Some(10_000.0)));
    assert_eq!((one.stats().origin.bytes, two.stats().origin.bytes), (0, 10_000));
    assert!(!one.stats().origin.requests.contains_key("get"));

    two.stop().await;
    drop(two);
    let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    assert!(!text.contains("dataset=\"two\"") && text.contains("dataset=\"one\""));
    let again = open(&second, "two", &metrics).await;
    assert_eq!(bytes("two"), Some(0.0), "opened again it counts from the start");
    again.stop().await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_does_not_answer_takes_no_memory_that_other_datasets_need() {
    let shared = SharedBudget::new(32 * MIB, 16 * MIB);
    let sharing = |pond: &Pond| DatasetOptions {
        shared_memory: Some(shared.clone()),
        ..pond.options()
    };
    let mut files: Vec<_> = (0..100).map(|file| (format!("small/{file}"), 100_000)).collect();
    files.push(("large".to_owned(), 40 * MIB));
    let (dead, well) = (
        Arc::new(Pond::new((0..12).map(|file| (format!("{file}"), 9 * MIB)))),
        Pond::new(files),
    );
    let (one, two) = (dead.start(sharing(&dead)).await, well.start(sharing(&well)).await);
    let stalled = dead
        .origin
        .faults()
        .add(Rule::new(Fault::Stall { after: 0 }).on(&[Kind::Get]));
    let mut reads = JoinSet::new();
    for (key, object) in tree(&one) {
        let (dead, one) = (Arc::clone(&dead), Arc::clone(&one));
        reads.spawn(async move { dead.check(&one, &key, object, 8 * MIB).await });
    }
    eventually("the first to hold all shared memory", || async {
        one.stats().memory.waiting > 0
    })
    .await;

    for (key, object) in tree(&two) {
        well.check(&two, &key, object, MIB).await;
    }
    let held = one.stats().memory;
    assert!(held.waiting > 0 && held.used_bytes > 32 * MIB, "{held:?}");

    dead.origin.faults().remove(stalled);
    reads.join_all().await;
    one.stop().await;
    two.stop().await;
}
