//! Right bytes, few requests.

use std::sync::Arc;

use futures::future::join_all;
use millpond_core::{LandOutcome, Worker};

use crate::dataset::pond::{BUCKET, MIB, Pond, eventually, is_cached, stream, tree};

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_read_is_right_and_fetched_once() {
    let sizes = [
        0,
        1,
        4_095,
        100_000,
        MIB - 1,
        MIB,
        MIB + 1,
        8 * MIB,
        8 * MIB + 1,
        20 * MIB + 12_345,
    ];
    let pond = Pond::new(sizes.iter().map(|size| (format!("of/{size}"), *size)));
    let dataset = pond.start(pond.options()).await;
    let objects = tree(&dataset);
    assert_eq!(objects.len(), sizes.len());
    for epoch in 0..3_u64 {
        for (key, object) in &objects {
            match epoch {
                0 => pond.check(&dataset, key, *object, 128 << 10).await,
                1 => pond.open_and_check(&dataset, key, *object).await,
                _ => pond.check(&dataset, key, *object, 1_000_003).await,
            }
        }
    }
    assert_eq!(pond.counters().bytes_sent, pond.total_bytes());
    for (key, object) in &objects {
        eventually(key, || is_cached(&dataset, *object)).await;
    }
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_lands_a_small_object_and_leaves_a_large_one_to_fuse() {
    let pond = Pond::new([("small".to_owned(), 100_000), ("large".to_owned(), 9 * MIB)]);
    let dataset = pond.start(pond.options()).await;
    let objects = tree(&dataset);
    assert_eq!(
        dataset.fetch_to_landing(objects["small"]).await.unwrap(),
        LandOutcome::Landed
    );
    let read = dataset.stats().read;
    assert_eq!(
        (read.origin_opens, read.local_opens),
        (1, 0),
        "it was fetched: {read:?}"
    );
    let path = objects["small"].id.path();
    let found = dataset.tiers().iter().any(|tier| {
        [tier.landing.join(&path), tier.objects.join(&path)]
            .iter()
            .all(|path| path.exists())
    });
    assert!(
        found,
        "a landed object is in the landing and the objects directory of one tier"
    );
    assert_eq!(
        dataset.fetch_to_landing(objects["large"]).await.unwrap(),
        LandOutcome::ThroughFuse
    );
    assert_eq!(pond.counters().gets, 1);
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_was_cached_before_its_lookup_is_landed_and_counts_as_local() {
    let pond = Pond::new([("small".to_owned(), 100_000)]);
    let dataset = pond.start(pond.options()).await;
    let object = tree(&dataset)["small"];
    assert_eq!(
        dataset.fetch_to_landing(object).await.unwrap(),
        LandOutcome::Landed
    );
    let landed: Vec<_> = dataset
        .tiers()
        .iter()
        .map(|tier| tier.landing.join(object.id.path()))
        .filter(|path| path.exists())
        .collect();
    // The landing link was removed.
    landed.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    for times in 1..3 {
        assert_eq!(
            dataset.fetch_to_landing(object).await.unwrap(),
            LandOutcome::Landed
        );
        assert!(landed.len() == 1 && landed[0].exists(), "{landed:?}");
        let read = dataset.stats().read;
        assert_eq!((read.origin_opens, read.origin_bytes), (1, 100_000), "{read:?}");
        assert_eq!(
            (read.local_opens, read.local_bytes),
            (times, times * 100_000),
            "{read:?}"
        );
    }
    assert_eq!(pond.counters().gets, 1);
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_the_same_bytes_share_one_request() {
    let pond = Pond::new([("small".to_owned(), 100_000), ("large".to_owned(), 24 * MIB)]);
    pond.origin.set_latency(std::time::Duration::from_millis(20));
    let dataset = pond.start(pond.options()).await;
    let objects = tree(&dataset);
    let pond = Arc::new(pond);
    let readers = (0..32).map(|reader| {
        let (pond, dataset, objects) = (Arc::clone(&pond), Arc::clone(&dataset), objects.clone());
        async move {
            match reader % 3 {
                0 => drop(dataset.fetch_to_landing(objects["small"]).await.unwrap()),
                1 => pond.check(&dataset, "small", objects["small"], 40_000).await,
                _ => pond.check(&dataset, "large", objects["large"], 512 << 10).await,
            }
        }
    });
    join_all(readers).await;
    let counters = pond.counters();
    assert_eq!(counters.key(BUCKET, "small").gets, 1);
    assert_eq!(counters.bytes_sent, pond.total_bytes());
    let read = dataset.stats().read;
    assert_eq!(
        read.origin_bytes,
        pond.total_bytes(),
        "each byte from the source is counted once: {read:?}"
    );
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_dropped_leaves_the_fetch_to_the_others() {
    let pond = Pond::new([("small".to_owned(), 200_000)]);
    pond.origin.set_latency(std::time::Duration::from_millis(100));
    let dataset = pond.start(pond.options()).await;
    let object = tree(&dataset)["small"];
    {
        let first = dataset.fetch_to_landing(object);
        let mut first = std::pin::pin!(first);
        assert!(futures::poll!(&mut first).is_pending());
    }
    assert_eq!(
        dataset.fetch_to_landing(object).await.unwrap(),
        LandOutcome::Landed
    );
    let read = dataset.stats().read;
    assert_eq!(
        (read.origin_opens, read.local_opens),
        (0, 1),
        "it was here: {read:?}"
    );
    assert_eq!(pond.counters().gets, 1);
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequential_reader_needs_few_requests() {
    let pond = Pond::new([("large".to_owned(), 96 * MIB)]);
    let dataset = pond.start(pond.options()).await;
    let object = tree(&dataset)["large"];
    pond.check(&dataset, "large", object, 128 << 10).await;
    let counters = pond.counters();
    assert_eq!(counters.bytes_sent, 96 * MIB);
    // 12 of 8 MiB, and the smaller ones of the first windows.
    assert!(counters.gets <= 30, "{} requests", counters.gets);
    eventually("the object to be complete", || is_cached(&dataset, object)).await;
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_random_reader_fetches_only_the_blocks_it_reads() {
    let pond = Pond::new([("large".to_owned(), 256 * MIB)]);
    let dataset = pond.start(pond.options()).await;
    let object = tree(&dataset)["large"];
    let stream = stream();
    let blocks: Vec<u64> = (1..40).map(|read| read * 101 % 256).collect();
    for block in &blocks {
        let at = block * MIB + 5_000;
        let data = dataset.read(object, stream, at..at + 4_096).await.unwrap();
        assert!(*data == pond.expected("large", at..at + 4_096)[..]);
    }
    dataset.file_closed(object, stream);
    let counters = pond.counters();
    // On a slow machine some are hedged, and the slower response is dropped.
    let hedges = dataset.stats().origin.hedges;
    assert_eq!(counters.gets, blocks.len() as u64 + hedges);
    assert!((0..=hedges * MIB).contains(&(counters.bytes_sent - blocks.len() as u64 * MIB)));
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_beyond_the_end_are_short() {
    let pond = Pond::new([("small".to_owned(), 1_000)]);
    let dataset = pond.start(pond.options()).await;
    let object = tree(&dataset)["small"];
    let stream = stream();
    assert_eq!(dataset.read(object, stream, 900..5_000).await.unwrap().len(), 100);
    assert_eq!(dataset.read(object, stream, 1_000..5_000).await.unwrap().len(), 0);
    assert_eq!(
        dataset
            .read(object, stream, u64::MAX - 1..u64::MAX)
            .await
            .unwrap()
            .len(),
        0
    );
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_report_hits_and_misses_as_the_origin_counts_them() {
    let pond = Pond::small(50, 30_000);
    let dataset = pond.start(pond.options()).await;
    let objects = tree(&dataset);
    for _epoch in 0..2 {
        for (key, object) in &objects {
            if is_cached(&dataset, *object).await {
                continue;
            }
            pond.check(&dataset, key, *object, 128 << 10).await;
        }
    }
    let stats = dataset.stats();
    assert_eq!(stats.read.origin_bytes, pond.counters().bytes_sent);
    assert_eq!(stats.read.local_bytes, pond.total_bytes());
    assert_eq!(stats.read.byte_hit_rate, Some(0.5));
    assert_eq!(stats.read.open_streams, 0);
    let catalog = stats.catalog.unwrap();
    assert_eq!((catalog.files, catalog.bytes), (50, pond.total_bytes()));
    dataset.stop().await;
}
