use std::ops::Range;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use object_store::{ObjectStore, ObjectStoreExt};
use prometheus::Registry;

use super::*;

fn content(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| u8::try_from(index * 7 % 251).unwrap())
        .collect()
}

async fn with_object(length: usize) -> (Origin, Arc<InMemory>, Validator) {
    let store = Arc::new(InMemory::new());
    let put = store
        .put(&Path::from("d/a"), content(length).into())
        .await
        .unwrap();
    let source = Source::of_store(
        "memory://",
        "",
        Arc::<InMemory>::clone(&store) as Arc<dyn ObjectStore>,
    );
    let metrics = OriginMetrics::new(&Registry::new()).unwrap();
    let origin = Origin::new(Arc::new(source), OriginOptions::default(), metrics);
    (origin, store, Validator::ETag(put.e_tag.unwrap()))
}

fn request(validator: &Validator, size: usize, range: Range<usize>) -> Request {
    Request {
        key: "d/a".to_owned(),
        validator: validator.clone(),
        size_bytes: size as u64,
        range: range.start as u64..range.end as u64,
        priority: Priority::Reader,
    }
}

#[tokio::test]
async fn fetches_exactly_the_range() {
    let (origin, _store, validator) = with_object(10_000).await;
    for range in [0..10_000, 0..1, 17..4_000, 9_999..10_000, 5..5] {
        let fetched = origin
            .fetch(request(&validator, 10_000, range.clone()))
            .await
            .unwrap();
        assert_eq!(fetched.concat(), content(10_000)[range]);
    }
}

#[tokio::test]
async fn a_range_beyond_the_size_is_an_error() {
    let (origin, _store, validator) = with_object(100).await;
    let result = origin.fetch(request(&validator, 100, 90..101)).await;
    assert!(matches!(result, Err(FetchError::Unavailable { .. })));
}

#[tokio::test]
async fn a_changed_or_deleted_object_is_distinguished_from_one_that_fails() {
    let (origin, store, validator) = with_object(100).await;
    store.put(&Path::from("d/a"), content(100).into()).await.unwrap();
    let changed = FetchError::Changed {
        key: "d/a".to_owned(),
    };
    assert_eq!(
        origin.fetch(request(&validator, 100, 0..100)).await.unwrap_err(),
        changed
    );
    store.delete(&Path::from("d/a")).await.unwrap();
    assert_eq!(
        origin.fetch(request(&validator, 100, 3..5)).await.unwrap_err(),
        changed
    );
}

#[tokio::test]
async fn sends_complete_blocks_in_order() {
    let (origin, _store, validator) = with_object(10_000).await;
    let (send, mut receive) = mpsc::channel(100);
    origin
        .fetch_blocks(request(&validator, 10_000, 2_000..9_500), 1_000, send)
        .await
        .unwrap();
    let mut expected = 2;
    while let Some(block) = receive.recv().await {
        assert_eq!(block.index, expected);
        let start = usize::try_from(block.index).unwrap() * 1_000;
        assert_eq!(
            block.content.concat(),
            content(10_000)[start..(start + 1_000).min(9_500)]
        );
        expected += 1;
    }
    assert_eq!(expected, 10);
}

#[tokio::test]
async fn a_dropped_receiver_of_blocks_ends_the_fetch() {
    let (origin, _store, validator) = with_object(10_000).await;
    let (send, receive) = mpsc::channel(1);
    drop(receive);
    assert_eq!(
        origin
            .fetch_blocks(request(&validator, 10_000, 0..10_000), 1_000, send)
            .await,
        Ok(())
    );
}

/// A source that needs `latency` for each GET, which the test's clock skips.
async fn slow(latency: Duration, options: OriginOptions) -> (Arc<Origin>, Validator) {
    let store = InMemory::new();
    let put = store.put(&Path::from("d/a"), content(100).into()).await.unwrap();
    let config = ThrottleConfig {
        wait_get_per_call: latency,
        ..ThrottleConfig::default()
    };
    let source = Source::of_store("memory://", "", Arc::new(ThrottledStore::new(store, config)));
    let metrics = OriginMetrics::new(&Registry::new()).unwrap();
    (
        Arc::new(Origin::new(Arc::new(source), options, metrics)),
        Validator::ETag(put.e_tag.unwrap()),
    )
}

async fn many(origin: &Arc<Origin>, validator: &Validator, count: usize) -> Vec<Result<usize, FetchError>> {
    let mut fetches = tokio::task::JoinSet::new();
    for _ in 0..count {
        let (origin, request) = (Arc::clone(origin), request(validator, 100, 0..100));
        fetches.spawn(async move { origin.fetch(request).await.map(|chunks| chunks.concat().len()) });
    }
    fetches.join_all().await
}

fn one_at_a_time() -> OriginOptions {
    OriginOptions {
        deadline: Duration::from_secs(5),
        concurrency: ConcurrencyOptions {
            min: 1,
            max: 1,
            ..ConcurrencyOptions::default()
        },
        ..OriginOptions::default()
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_source_that_serves_others_does_not_count() {
    let (origin, validator) = slow(Duration::from_secs(2), one_at_a_time()).await;
    for result in many(&origin, &validator, 20).await {
        assert_eq!(result, Ok(100));
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_source_that_serves_no_request_ends_at_the_deadline() {
    let (origin, validator) = slow(Duration::from_secs(1000), one_at_a_time()).await;
    let began = Instant::now();
    for result in many(&origin, &validator, 20).await {
        assert!(
            matches!(result, Err(FetchError::Unavailable { .. })),
            "{result:?}"
        );
    }
    // The test's own clock: all timed out together.
    assert_eq!(began.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_reader_that_takes_nothing_does_not_count() {
    let (origin, validator) = slow(Duration::from_secs(2), one_at_a_time()).await;
    let (send, mut receive) = mpsc::channel(1);
    let fetch = origin.fetch_blocks(request(&validator, 100, 0..100), 10, send);
    let read = async {
        let mut blocks = 0;
        while receive.recv().await.is_some() {
            blocks += 1;
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        blocks
    };
    assert_eq!(tokio::join!(fetch, read), (Ok(()), 10));
}
