use std::collections::BTreeSet;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use prometheus::Registry;

use super::*;

fn metrics() -> OriginMetrics {
    OriginMetrics::new(&Registry::new()).unwrap()
}

async fn all(mut listing: Listing) -> Result<(BTreeSet<String>, Vec<Refused>), ListError> {
    let mut keys = BTreeSet::new();
    let mut refused = Vec::new();
    while let Some(batch) = listing.next().await? {
        for object in batch.objects {
            assert!(keys.insert(object.key.clone()), "{} listed twice", object.key);
        }
        refused.extend(batch.refused);
    }
    Ok((keys, refused))
}

async fn memory(keys: &[String]) -> Arc<dyn ObjectStore> {
    let store = InMemory::new();
    for key in keys {
        store
            .put(&Path::from(key.as_str()), vec![0; key.len()].into())
            .await
            .unwrap();
    }
    Arc::new(store)
}

#[tokio::test]
async fn every_object_below_the_prefix_is_listed_once() {
    let keys: Vec<String> = (0..300).map(|n| format!("d/{}/{}/f{n}", n % 7, n % 3)).collect();
    let mut stored = keys.clone();
    stored.extend(["dd/x".to_owned(), "top".to_owned()]);
    let source = Arc::new(Source::of_store("memory://d/", "d/", memory(&stored).await));
    for workers in [1, 2, 16] {
        let options = ListOptions {
            workers,
            ..ListOptions::default()
        };
        let listing = Listing::start(Arc::clone(&source), options, metrics());
        let progress = listing.progress();
        let (found, refused) = all(listing).await.unwrap();
        assert_eq!(found, keys.iter().cloned().collect());
        assert!(refused.is_empty());
        let progress = *progress.borrow();
        assert_eq!((progress.objects, progress.prefixes_waiting), (300, 0));
        assert_eq!(
            progress.bytes,
            keys.iter().map(|key| key.len() as u64).sum::<u64>()
        );
        assert_eq!(progress.prefixes_done, progress.pages);
    }
}

#[tokio::test]
async fn an_empty_source_is_listed() {
    let source = Arc::new(Source::of_store("memory://", "", memory(&[]).await));
    let (found, refused) = all(Listing::start(source, ListOptions::default(), metrics()))
        .await
        .unwrap();
    assert!(found.is_empty() && refused.is_empty());
}

#[tokio::test]
async fn a_directory_of_this_host_is_listed() {
    let directory = tempfile::tempdir().unwrap();
    for n in 0..50 {
        let parent = directory.path().join(format!("a{}/b{}", n % 5, n % 2));
        std::fs::create_dir_all(&parent).unwrap();
        std::fs::write(parent.join(format!("line\nbreak {n}")), b"x").unwrap();
    }
    std::os::unix::fs::symlink("/etc/passwd", directory.path().join("out")).unwrap();
    let url = format!("file://{}", directory.path().display());
    let source = Source::open(&crate::source::SourceOptions {
        url,
        ..Default::default()
    })
    .unwrap();
    let (found, refused) = all(Listing::start(
        Arc::new(source),
        ListOptions::default(),
        metrics(),
    ))
    .await
    .unwrap();
    assert_eq!(found.len(), 50);
    assert!(
        found.contains("a0/b0/line\nbreak 0"),
        "the kernel can open any name"
    );
    assert_eq!(
        refused,
        [Refused {
            key: "out".to_owned(),
            reason: RefusedBecause::LinkOutside
        }]
    );
}

#[tokio::test]
async fn a_listing_that_is_dropped_ends() {
    let keys: Vec<String> = (0..200).map(|n| format!("{n}/f")).collect();
    let source = Arc::new(Source::of_store("memory://", "", memory(&keys).await));
    let mut listing = Listing::start(Arc::clone(&source), ListOptions::default(), metrics());
    assert!(listing.next().await.unwrap().is_some());
    drop(listing);
    while Arc::strong_count(&source) > 1 {
        tokio::task::yield_now().await;
    }
}
