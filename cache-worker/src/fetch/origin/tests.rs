use std::ops::Range;

use object_store::memory::InMemory;
use object_store::path::Path;
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
        urgency: Urgency::Reader,
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
async fn an_object_that_changed_or_went_is_told_from_one_that_fails() {
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
async fn hands_over_whole_blocks_in_order() {
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
async fn a_reader_of_blocks_that_goes_ends_the_fetch() {
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
