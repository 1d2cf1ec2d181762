//! More data than space, on disk and in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::join_all;
use millpond_cache::Eviction;

use crate::dataset::pond::{BUCKET, MIB, Pond, is_cached, tree};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_cache_keeps_its_objects_and_the_rest_bypasses_it() {
    let pond = Pond::small(200, 100_000);
    let mut options = pond.options();
    options.disk_limit.bytes = Some(12 * MIB);
    let dataset = pond.start(options).await;
    let objects = tree(&dataset);
    for (key, object) in &objects {
        pond.open_and_check(&dataset, key, *object).await;
    }
    assert_eq!(
        pond.counters().bytes_sent,
        pond.total_bytes(),
        "what is not stored is fetched once too"
    );
    let mut kept = Vec::new();
    for (key, object) in &objects {
        if is_cached(&dataset, *object).await {
            kept.push(key.clone());
        }
    }
    assert!(
        !kept.is_empty() && kept.len() < objects.len(),
        "{} stored",
        kept.len()
    );
    // Others, so that nothing of the first pass is still in memory.
    let refused: Vec<_> = objects.iter().filter(|(key, _)| !kept.contains(key)).collect();
    for epoch in 2..4 {
        let before = pond.counters();
        for (key, object) in &objects {
            pond.open_and_check(&dataset, key, *object).await;
        }
        let after = pond.counters();
        for key in &kept {
            assert_eq!(after.key(BUCKET, key).gets, 1, "epoch {epoch}: {key} is cached");
        }
        assert!(after.gets - before.gets <= refused.len() as u64);
    }
    let tier = dataset.stats().tiers.pop().unwrap();
    assert!(tier.used_bytes <= 12 * MIB, "{tier:?}");
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_without_space_costs_few_requests() {
    let pond = Pond::new([("four".to_owned(), 4 * MIB), ("large".to_owned(), 64 * MIB)]);
    let mut options = pond.options();
    options.disk_limit.bytes = Some(MIB);
    let dataset = pond.start(options).await;
    let objects = tree(&dataset);
    for (key, object) in &objects {
        pond.check(&dataset, key, *object, 128 << 10).await;
    }
    let counters = pond.counters();
    assert_eq!(counters.key(BUCKET, "four").gets, 1);
    assert!(
        counters.key(BUCKET, "large").gets <= 32,
        "{:?}",
        counters.key(BUCKET, "large")
    );
    assert_eq!(counters.bytes_sent, pond.total_bytes());
    let memory = dataset.stats().memory;
    assert!(
        memory.transient_bytes <= 48 * MIB && memory.transient_bytes > 0,
        "{memory:?}"
    );
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_over_twice_the_cache_get_right_bytes_while_it_evicts() {
    for eviction in [Eviction::Lru, Eviction::TinyLfu] {
        let mut files: Vec<_> = (0..200).map(|file| (format!("small/{file}"), 100_000)).collect();
        files.extend((0..2).map(|file| (format!("large/{file}"), 9 * MIB)));
        let pond = Arc::new(Pond::new(files));
        let mut options = pond.options();
        options.disk_limit.bytes = Some(20 * MIB);
        options.eviction = eviction;
        let dataset = pond.start(options).await;
        let objects: Arc<Vec<_>> = Arc::new(tree(&dataset).into_iter().collect());
        let readers = (0..4_usize).map(|reader| {
            let (pond, dataset, objects) = (Arc::clone(&pond), Arc::clone(&dataset), Arc::clone(&objects));
            async move {
                for step in 0..200 {
                    let (key, object) = &objects[(step * 37 + reader * 61) % objects.len()];
                    pond.open_and_check(&dataset, key, *object).await;
                }
            }
        });
        join_all(readers).await;
        let stats = dataset.stats();
        assert!(stats.store.evicted_objects > 0, "{eviction:?}: {:?}", stats.store);
        assert!(
            stats
                .tiers
                .iter()
                .all(|tier| tier.used_bytes <= tier.capacity_bytes),
            "{:?}",
            stats.tiers
        );
        dataset.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_within_its_budget() {
    let mut files: Vec<_> = (0..64).map(|file| (format!("small/{file}"), 2 * MIB)).collect();
    files.extend((0..8).map(|file| (format!("large/{file}"), 40 * MIB)));
    let pond = Arc::new(Pond::new(files));
    let mut options = pond.options();
    options.memory_bytes = 64 * MIB;
    options.disk_limit.bytes = Some(200 * MIB);
    let dataset = pond.start(options).await;
    let over = Arc::new(AtomicBool::new(false));
    let reading = {
        let (pond, dataset) = (Arc::clone(&pond), Arc::clone(&dataset));
        async move {
            let readers = tree(&dataset).into_iter().map(|(key, object)| {
                let (pond, dataset) = (Arc::clone(&pond), Arc::clone(&dataset));
                async move { pond.check(&dataset, &key, object, 256 << 10).await }
            });
            join_all(readers).await;
        }
    };
    let watching = async {
        loop {
            let memory = dataset.stats().memory;
            if memory.used_bytes > memory.capacity_bytes {
                over.store(true, Ordering::Relaxed);
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = reading => {}
        () = watching => {}
    }
    assert!(!over.load(Ordering::Relaxed));
    dataset.stop().await;
}
