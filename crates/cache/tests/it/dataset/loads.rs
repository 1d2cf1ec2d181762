//! Loads: warming a Dataset before it is read.

use millpond_cache::Eviction;
use millpond_cache::dataset::{LoadError, LoadOptions, LoadProgress};
use millpond_core::Worker;
use origin::Body;
use tokio::sync::watch;

use crate::dataset::pond::{BUCKET, MIB, Pond, is_cached, tree};

fn of(paths: &[&str]) -> LoadOptions {
    LoadOptions {
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        ..LoadOptions::default()
    }
}

fn bucket() -> Pond {
    let mut files: Vec<_> = (0..40)
        .map(|file| (format!("train/{:02}/{file}.jpg", file % 4), 10_000))
        .collect();
    files.push(("train/large.tar".to_owned(), 20 * MIB));
    files.push(("test/a.jpg".to_owned(), 1_000));
    files.push(("odd/[a]*.jpg".to_owned(), 1_000));
    Pond::new(files)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_fetches_everything_once() {
    let pond = bucket();
    let dataset = pond.start(pond.options()).await;
    let progress = watch::Sender::new(LoadProgress::default());
    let end = dataset.load(of(&[]), &progress).await.unwrap();
    assert_eq!(
        (end.files_total, end.files_done, end.failed),
        (43, 43, 0),
        "{end:?}"
    );
    assert_eq!(
        (end.bytes_total, end.bytes_done, end.bytes_fetched),
        (pond.total_bytes(), pond.total_bytes(), pond.total_bytes())
    );
    assert!(end.finished && end.counted);
    for (key, object) in tree(&dataset) {
        assert!(is_cached(&dataset, object).await, "{key}");
    }
    let again = dataset
        .load(of(&[]), &watch::Sender::new(LoadProgress::default()))
        .await
        .unwrap();
    assert_eq!((again.files_done, again.bytes_fetched), (43, 0));
    assert_eq!(pond.counters().bytes_sent, pond.total_bytes());
    assert_eq!(dataset.stats().loads.bytes, pond.total_bytes());
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_takes_files_directories_and_globs() {
    let pond = bucket();
    let dataset = pond.start(pond.options()).await;
    for (paths, files) in [
        (vec!["test/a.jpg"], 1),
        (vec!["/train/00/"], 10),
        (vec!["train/*/1*.jpg"], 11),
        (vec!["**/*.tar", "test"], 2),
        (vec!["odd/[a]*.jpg"], 1),
    ] {
        let end = dataset
            .load(of(&paths), &watch::Sender::new(LoadProgress::default()))
            .await
            .unwrap();
        assert_eq!((end.files_total, end.files_done), (files, files), "{paths:?}");
    }
    let nothing = dataset
        .load(of(&["tra"]), &watch::Sender::new(LoadProgress::default()))
        .await;
    assert!(matches!(nothing, Err(LoadError::NothingMatches { .. })));
    let wrong = dataset
        .load(of(&["a/{b"]), &watch::Sender::new(LoadProgress::default()))
        .await;
    assert!(matches!(wrong, Err(LoadError::Path { .. })));
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_continues_past_files_that_fail() {
    let pond = bucket();
    let dataset = pond.start(pond.options()).await;
    pond.origin
        .change(BUCKET, "test/a.jpg", Body::generated(77, 1_000));
    let end = dataset
        .load(
            of(&["test", "train/01"]),
            &watch::Sender::new(LoadProgress::default()),
        )
        .await
        .unwrap();
    assert_eq!((end.files_done, end.failed), (10, 1));
    assert!(end.failed_samples[0].starts_with("test/a.jpg: "), "{end:?}");
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_takes_free_space_only_and_reports_what_it_left_out() {
    for eviction in [Eviction::Never, Eviction::Lru, Eviction::TinyLfu] {
        let mut files: Vec<_> = (0..60).map(|file| (format!("hot/{file}"), 100_000)).collect();
        files.extend((0..200).map(|file| (format!("cold/{file}"), 100_000)));
        files.push(("cold/large".to_owned(), 30 * MIB));
        let pond = Pond::new(files);
        let mut options = pond.options();
        options.disk_limit.bytes = Some(20 * MIB);
        options.eviction = eviction;
        let dataset = pond.start(options).await;
        let objects = tree(&dataset);
        let hot = || objects.iter().filter(|(key, _)| key.starts_with("hot/"));
        for (key, object) in hot() {
            pond.open_and_check(&dataset, key, *object).await;
        }
        let end = dataset
            .load(of(&["cold"]), &watch::Sender::new(LoadProgress::default()))
            .await
            .unwrap();
        assert_eq!(end.files_done + end.left_out, 201, "{eviction:?}: {end:?}");
        assert_eq!(end.failed, end.left_out, "{eviction:?}: {end:?}");
        assert!(
            end.files_done > 40 && end.left_out > 40,
            "{eviction:?}: free space is used: {end:?}"
        );
        assert!(end.failed_samples[0].contains("no free space"), "{end:?}");
        // Space beyond the level at which eviction begins would be evicted again immediately.
        let store = dataset.stats().store;
        assert_eq!(store.evicted_objects, 0, "{eviction:?}: {store:?}");
        for (key, object) in hot() {
            assert!(is_cached(&dataset, *object).await, "{eviction:?}: {key}");
        }
        // A reader gets space that a load does not.
        if eviction != Eviction::Never {
            for (key, object) in objects.iter().filter(|(key, _)| key.starts_with("cold/")) {
                pond.open_and_check(&dataset, key, *object).await;
            }
            assert!(dataset.stats().store.evicted_objects > 0, "{eviction:?}");
        }
        dataset.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_joins_a_load_without_space_gets_space() {
    let pond = Pond::new((0..200).map(|file| (format!("{file:03}"), 100_000)));
    let mut options = pond.options();
    options.disk_limit.bytes = Some(14 * MIB);
    options.eviction = Eviction::Lru;
    let dataset = pond.start(options).await;
    let objects: Vec<_> = tree(&dataset).into_iter().collect();
    for (key, object) in &objects[..100] {
        pond.open_and_check(&dataset, key, *object).await;
    }
    let progress = watch::Sender::new(LoadProgress::default());
    for _ in 0..5 {
        let reading = async {
            for (_, object) in &objects[100..] {
                let landed = dataset.fetch_to_landing(*object).await.unwrap();
                assert_ne!(landed, millpond_core::LandOutcome::ThroughFuse);
            }
        };
        let (loaded, ()) = tokio::join!(dataset.load(of(&[]), &progress), reading);
        loaded.unwrap();
    }
    dataset.stop().await;
}
