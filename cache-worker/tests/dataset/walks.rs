//! Readers that walk a directory.

use protocol::Worker;

use crate::pond::{Pond, eventually, is_here, tree};

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_is_fetched_ahead_of() {
    let pond = Pond::small(60, 20_000);
    let dataset = pond.start(pond.options()).await;
    let objects: Vec<_> = tree(&dataset).into_iter().collect();
    let mut missed = 0;
    for (key, object) in &objects {
        if is_here(&dataset, *object).await {
            continue;
        }
        missed += 1;
        pond.open_and_check(&dataset, key, *object).await;
        // What was asked for ahead arrives before the walk goes on.
        eventually("the files ahead", || async {
            let stats = dataset.stats();
            stats.memory.used_bytes == 0 && stats.origin.bytes % 20_000 == 0
        })
        .await;
    }
    assert!(
        missed < 40,
        "{missed} of 60 files were not here when the walk came to them"
    );
    assert_eq!(pond.counters().gets, 60);
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shuffled_epoch_fetches_nothing_that_was_not_asked_for() {
    let pond = Pond::small(1_009, 1_000);
    let dataset = pond.start(pond.options()).await;
    let objects: Vec<_> = tree(&dataset).into_values().collect();
    for step in 0..300 {
        dataset.land(objects[step * 379 % objects.len()]).await.unwrap();
    }
    assert_eq!(pond.counters().gets, 300);
    dataset.stop().await;
}
