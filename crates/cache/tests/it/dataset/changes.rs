//! Sources that change, and generations.

use std::collections::BTreeSet;

use millpond_core::{ReadError, Worker};
use origin::Body;

use crate::dataset::pond::{BUCKET, GUARD, MIB, Pond, newest, peek, tree};

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_finds_nothing_new_makes_no_generation() {
    let pond = Pond::small(20, 1_000);
    let dataset = pond.start(pond.options()).await;
    let first = newest(&dataset).generation;
    let refreshed = dataset.refresh().await.unwrap();
    assert!(!refreshed.changed);
    assert_eq!((refreshed.generation, refreshed.files), (first, 20));
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_publishes_additions_and_deletions_in_a_new_generation() {
    let pond = Pond::small(5, 1_000);
    let dataset = pond.start(pond.options()).await;
    let first = newest(&dataset);
    pond.origin.put(BUCKET, "new", b"new bytes".to_vec());
    pond.origin.delete(BUCKET, "dir/file-00000");
    let refreshed = dataset.refresh().await.unwrap();
    assert!(refreshed.changed && refreshed.generation > first.generation);
    let objects = tree(&dataset);
    assert!(objects.contains_key("new") && !objects.contains_key("dir/file-00000"));
    assert_eq!(peek(&dataset, objects["new"]).await.unwrap(), b"new bytes");
    assert!(
        first.image.exists(),
        "no driver has reported yet that the first is not mounted any more"
    );
    dataset.retain_generations(&BTreeSet::from([first.generation]));
    assert!(first.image.exists(), "a view has it mounted");
    dataset.retain_generations(&BTreeSet::new());
    assert!(!first.image.exists() && !first.index.exists());
    assert!(newest(&dataset).image.exists());
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_object_is_an_error_and_causes_a_refresh() {
    for size in [50_000, 10 * MIB] {
        let pond = Pond::new([("object".to_owned(), size)]);
        let dataset = pond.start(pond.options()).await;
        let old = tree(&dataset)["object"];
        let mut catalogs = dataset.catalogs();
        catalogs.mark_unchanged();
        pond.origin.change(BUCKET, "object", Body::generated(99, size));
        assert!(matches!(
            peek(&dataset, old).await,
            Err(ReadError::Changed { .. })
        ));
        if size < MIB {
            assert!(matches!(
                dataset.fetch_to_landing(old).await,
                Err(ReadError::Changed { .. })
            ));
        }
        tokio::time::timeout(GUARD, catalogs.changed())
            .await
            .expect("a new generation")
            .unwrap();
        let new = tree(&dataset)["object"];
        assert_ne!(new.id, old.id);
        assert_eq!(peek(&dataset, new).await.unwrap(), origin::data::bytes(99, 0..16));
        assert!(
            matches!(peek(&dataset, old).await, Err(ReadError::Changed { .. })),
            "never the new bytes"
        );
        dataset.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cached_bytes_of_an_old_version_are_still_served() {
    let pond = Pond::new([("object".to_owned(), 50_000)]);
    let dataset = pond.start(pond.options()).await;
    let old = tree(&dataset)["object"];
    pond.open_and_check(&dataset, "object", old).await;
    pond.origin.change(BUCKET, "object", Body::generated(99, 50_000));
    dataset.refresh().await.unwrap();
    pond.check(&dataset, "object", old, 10_000).await;
    let new = tree(&dataset)["object"];
    assert_eq!(peek(&dataset, new).await.unwrap(), origin::data::bytes(99, 0..16));
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_no_catalog_references_is_unknown() {
    let pond = Pond::small(1, 1_000);
    let dataset = pond.start(pond.options()).await;
    let object = tree(&dataset)["dir/file-00000"];
    let other = millpond_core::ObjectRef {
        size_bytes: 999,
        ..object
    };
    assert!(matches!(
        peek(&dataset, other).await,
        Err(ReadError::Unknown { .. })
    ));
    let other = millpond_core::ObjectRef {
        generation: millpond_core::Generation(77),
        ..object
    };
    assert!(matches!(
        dataset.fetch_to_landing(other).await,
        Err(ReadError::Unknown { .. })
    ));
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_cannot_be_files_are_counted() {
    let pond = Pond::new(["good", "a//b", "a/../b", "dir", "dir/file"].map(|key| (key.to_owned(), 10)));
    let dataset = pond.start(pond.options()).await;
    let catalog = dataset.stats().catalog.unwrap();
    assert_eq!(catalog.files, 2);
    assert_eq!(catalog.refused.values().sum::<u64>(), 3, "{:?}", catalog.refused);
    assert_eq!(catalog.refused_samples.len(), 3);
    dataset.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_that_no_catalog_references_free_their_space() {
    let pond = Pond::new(
        (0..40)
            .map(|number| (format!("dir/{number:02}"), 100_000))
            .chain([("large".to_owned(), 20 * MIB)]),
    );
    let dataset = pond.start(pond.options()).await;
    let old = tree(&dataset);
    for (key, object) in &old {
        pond.open_and_check(&dataset, key, *object).await;
    }
    let first = newest(&dataset).generation;
    // A view still has the first generation mounted when the second one is published.
    dataset.retain_generations(&BTreeSet::from([first]));
    for key in old.keys().filter(|key| !key.ends_with("/00")) {
        let size = old[key].size_bytes;
        pond.origin.change(BUCKET, key, Body::generated(1_000, size));
    }
    assert!(dataset.refresh().await.unwrap().changed);
    let new = tree(&dataset);
    for object in new.values() {
        peek(&dataset, *object).await.unwrap();
    }
    let cached = |objects: Vec<millpond_core::ObjectRef>| {
        let dataset = std::sync::Arc::clone(&dataset);
        async move { objects.iter().filter(|object| dataset.has(object.id)).count() }
    };
    assert_eq!(
        cached(old.values().copied().collect()).await,
        41,
        "the view may read them all"
    );
    dataset.retain_generations(&BTreeSet::new());
    crate::dataset::pond::eventually("unreferenced objects to be removed", || {
        let left = cached(old.values().copied().collect());
        async move { left.await == 1 }
    })
    .await;
    assert!(
        dataset.has(old["dir/00"].id),
        "the unchanged one is still referenced"
    );
    assert_eq!(
        cached(
            new.values()
                .copied()
                .filter(|object| object.size_bytes < MIB)
                .collect()
        )
        .await,
        40,
        "the new versions stay"
    );
    dataset.stop().await;
}
