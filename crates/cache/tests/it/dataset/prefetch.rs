//! Readers that access a directory sequentially.

use millpond_core::{OpenCount, Worker};

use crate::dataset::pond::{Pond, eventually, is_cached, tree};

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_read_sequentially_is_prefetched() {
    let pond = Pond::small(60, 20_000);
    let dataset = pond.start(pond.options()).await;
    let objects: Vec<_> = tree(&dataset).into_values().collect();
    for object in &objects[..4] {
        dataset.fetch_to_landing(*object).await.unwrap();
    }
    // Each batch is twice the previous one; the miss behind it starts the next.
    let mut next = 4;
    for batch in [4, 8, 16] {
        for object in &objects[next..next + batch] {
            eventually("a prefetched file", || is_cached(&dataset, *object)).await;
        }
        next += batch;
        assert_eq!(pond.counters().gets, next as u64);
        dataset.fetch_to_landing(objects[next]).await.unwrap();
        next += 1;
    }
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefetched_file_counts_as_the_origins_the_first_time_it_is_opened() {
    let pond = Pond::small(60, 20_000);
    let dataset = pond.start(pond.options()).await;
    for _pass in 0..2 {
        for object in tree(&dataset).into_values() {
            if dataset.has(object.id) {
                // The kernel opens it alone, and the driver reports it.
                let (id, times) = (object.id, 1);
                dataset.count_kernel_opens(&[OpenCount { id, times }]);
            } else {
                dataset.fetch_to_landing(object).await.unwrap();
            }
        }
    }
    let reads = dataset.stats().read;
    assert_eq!(reads.origin_bytes, pond.counters().bytes_sent);
    assert_eq!(
        (reads.origin_bytes, reads.local_bytes),
        (60 * 20_000, 60 * 20_000)
    );
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shuffled_epoch_prefetches_nothing() {
    let pond = Pond::small(1_009, 1_000);
    let dataset = pond.start(pond.options()).await;
    let objects: Vec<_> = tree(&dataset).into_values().collect();
    for step in 0..300 {
        dataset
            .fetch_to_landing(objects[step * 379 % objects.len()])
            .await
            .unwrap();
    }
    assert_eq!(pond.counters().gets, 300);
    dataset.stop().await;
}
