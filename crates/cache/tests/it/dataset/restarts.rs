//! Caches that are reopened.

use std::time::Duration;

use millpond_core::{Generation, Worker};

use crate::dataset::pond::{BUCKET, MIB, Pond, is_cached, newest, tree};

#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_generations_begin_where_configured_and_never_decrease() {
    let pond = Pond::small(3, 100);
    let mut options = pond.options();
    options.first_generation = Generation(40);
    let dataset = pond.start(options.clone()).await;
    assert_eq!(newest(&dataset).generation, Generation(40));
    dataset.stop().await;
    drop(dataset);

    options.first_generation = Generation(7);
    let dataset = pond.start(options.clone()).await;
    assert_eq!(
        newest(&dataset).generation,
        Generation(40),
        "the one of the previous run"
    );
    pond.origin.put(BUCKET, "new", b"1".to_vec());
    let second = dataset.refresh().await.unwrap().generation;
    assert!(second > Generation(40));
    dataset.stop().await;
    drop(dataset);

    options.first_generation = Generation(1_000);
    let dataset = pond.start(options).await;
    pond.origin.put(BUCKET, "newer", b"1".to_vec());
    assert!(dataset.refresh().await.unwrap().generation >= Generation(1_000));
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_catalog_and_objects_without_a_request_to_the_source() {
    let pond = Pond::new([("small".to_owned(), 50_000), ("large".to_owned(), 10 * MIB)]);
    let dataset = pond.start(pond.options()).await;
    let objects = tree(&dataset);
    let generation = newest(&dataset).generation;
    for (key, object) in &objects {
        pond.check(&dataset, key, *object, 1 << 20).await;
    }
    dataset.stop().await;
    drop(dataset);
    pond.origin.disconnect();
    let mut options = pond.options();
    options.listing.page_deadline = Duration::from_millis(100);
    let dataset = pond.start(options).await;
    assert_eq!(newest(&dataset).generation, generation);
    for (key, object) in &objects {
        assert!(is_cached(&dataset, *object).await, "{key}");
        pond.check(&dataset, key, *object, 1 << 20).await;
    }
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_refreshes_in_the_background_or_before_the_start_if_configured() {
    let pond = Pond::small(3, 100);
    let dataset = pond.start(pond.options()).await;
    let first = newest(&dataset).generation;
    dataset.stop().await;
    drop(dataset);
    pond.origin.put(BUCKET, "new", b"1".to_vec());
    let dataset = pond.start(pond.options()).await;
    let mut catalogs = dataset.catalogs();
    let found = catalogs.wait_for(|newest| newest.as_ref().is_some_and(|newest| newest.generation > first));
    tokio::time::timeout(crate::dataset::pond::GUARD, found)
        .await
        .expect("a new generation")
        .unwrap();
    drop(catalogs);
    dataset.stop().await;
    drop(dataset);
    pond.origin.put(BUCKET, "newer", b"1".to_vec());
    let mut options = pond.options();
    options.fresh = true;
    let dataset = pond.start(options).await;
    assert!(tree(&dataset).contains_key("newer"));
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_that_was_damaged_before_the_last_boot_is_rebuilt() {
    let pond = Pond::small(3, 100);
    let dataset = pond.start(pond.options()).await;
    let file = newest(&dataset);
    dataset.stop().await;
    drop(dataset);
    let mut image = std::fs::read(&file.image).unwrap();
    let at = image.len() - 10;
    image[at] ^= 0xff;
    std::fs::write(&file.image, image).unwrap();
    let mut options = pond.options();
    options.boot_id = "another".to_owned();
    let dataset = pond.start(options).await;
    assert!(newest(&dataset).generation > file.generation);
    assert_eq!(tree(&dataset).len(), 3);
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_a_crash_left_incomplete_are_removed() {
    let pond = Pond::small(3, 100);
    let dataset = pond.start(pond.options()).await;
    let file = newest(&dataset);
    dataset.stop().await;
    drop(dataset);
    let directory = file.image.parent().unwrap();
    let leftovers = ["gen-7.erofs", "gen-7.index", "gen-abc.new"].map(|name| directory.join(name));
    for path in &leftovers {
        std::fs::write(path, b"half").unwrap();
    }
    let dataset = pond.start(pond.options()).await;
    assert_eq!(newest(&dataset).generation, file.generation);
    assert!(leftovers.iter().all(|path| !path.exists()));
    pond.origin.put(BUCKET, "new", b"1".to_vec());
    let refreshed = dataset.refresh().await.unwrap();
    assert!(refreshed.generation.0 > 7, "a number is never used twice");
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_owner_is_another_catalog() {
    let pond = Pond::small(3, 100);
    let dataset = pond.start(pond.options()).await;
    let first = newest(&dataset).generation;
    dataset.stop().await;
    drop(dataset);
    let mut options = pond.options();
    options.owner.uid = 1_000;
    let dataset = pond.start(options).await;
    assert!(newest(&dataset).generation > first);
    dataset.stop().await;
}
