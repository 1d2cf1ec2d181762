//! All views of a Dataset.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millpond_core::conformance;
use millpond_core::{Generation, ObjectId, Views, Worker};

use super::super::{
    BindSpec, InUse, OverlayMode, Registry, RegistryOptions, RemountRules, ViewError, ViewSpec,
};
use super::fixture::Fixture;
use super::worker::RecordingWorker;
use crate::metrics::ViewMetrics;
use crate::mount::Context;

fn registry(fixture: &Fixture) -> (Registry, ViewMetrics, Arc<RecordingWorker>) {
    let metrics = ViewMetrics::register(&prometheus::Registry::new()).unwrap();
    let remount = RemountRules {
        min_interval: Duration::ZERO,
        bytes: 1,
        max_delay: Duration::ZERO,
        duration_factor: 0,
    };
    let options = RegistryOptions {
        mode: OverlayMode::Handles,
        remount,
        metrics: metrics.clone(),
        mounter: fixture.mounter.clone(),
    };
    let registry = Registry::new(options).unwrap();
    let worker = RecordingWorker::new(fixture);
    registry.connect(Arc::clone(&worker) as Arc<dyn Worker>);
    (registry, metrics, worker)
}

fn generations(numbers: &[u64]) -> BTreeSet<Generation> {
    numbers.iter().copied().map(Generation).collect()
}

fn is_readable(fixture: &Fixture, spec: &ViewSpec) -> bool {
    fixture
        .files
        .iter()
        .all(|file| fs::read(spec.target.join(&file.name)).is_ok_and(|read| read == file.content))
}

fn mount_tmpfs(point: &Path) {
    let context = Context::open("tmpfs", point).unwrap();
    context.text("size", "16M".as_ref()).unwrap();
    context.create_writable().unwrap().attach(point).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_of_a_generation_share_its_image_and_the_worker_hears_of_it() {
    let fixture = Fixture::new(10);
    fixture.put_all("memory/objects");
    let (registry, metrics, worker) = registry(&fixture);
    let (a, b) = (fixture.spec("a"), fixture.spec("b"));
    registry.mount(a.clone()).await.unwrap();
    registry.mount(b.clone()).await.unwrap();
    assert_eq!(fixture.mounts().len(), 3, "two overlays and one image");
    assert!(is_readable(&fixture, &a));
    // One thread's opens of one file, even in two views, are one event if no event is read in between.
    registry.count_now().await.unwrap();
    assert!(is_readable(&fixture, &b));
    assert!(matches!(
        registry.mount(a.clone()).await,
        Err(ViewError::AlreadyMounted { .. })
    ));
    assert_eq!(registry.targets(), [a.target.clone(), b.target.clone()]);
    assert_eq!(metrics.views.get(), 2);

    registry.unmount(a.target.clone(), InUse::Refuse).await.unwrap();
    assert_eq!(
        worker.opens(),
        20,
        "the opens of a view are reported before its end"
    );
    assert!(is_readable(&fixture, &b));
    assert!(matches!(
        registry.unmount(a.target, InUse::Refuse).await,
        Err(ViewError::Missing { .. })
    ));
    registry.unmount(b.target, InUse::Refuse).await.unwrap();
    assert_eq!(fixture.mounts(), <[std::path::PathBuf; 0]>::default());
    assert_eq!(
        *worker.retained.lock(),
        [generations(&[]), generations(&[1]), generations(&[])]
    );
    assert_eq!(worker.opens(), 30);
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_where_a_view_cannot_be_shown() {
    let fixture = Fixture::new(3);
    let (registry, metrics, worker) = registry(&fixture);
    let mut spec = fixture.spec("view");
    spec.fuse_root = fixture.path().join("nowhere");
    let error = registry.mount(spec.clone()).await.unwrap_err();
    assert!(matches!(error, ViewError::Mount(_)), "{error:?}");
    spec.catalog.index = fixture.path().join("no.index");
    let error = registry.mount(spec).await.unwrap_err();
    assert!(matches!(error, ViewError::Catalog { .. }), "{error:?}");
    assert!(fixture.mounts().is_empty());
    assert_eq!(metrics.views.get(), 0);
    assert_eq!(worker.retained.lock().last(), Some(&generations(&[])));
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_does_what_all_views_must() {
    let fixture = Fixture::new(10);
    let (registry, _metrics, _worker) = registry(&fixture);
    let ids: Vec<_> = fixture.files.iter().map(|file| file.id).collect();
    conformance::views(&registry, &ids).await;
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn released_objects_give_their_space_back() {
    let fixture = Fixture::new(50);
    let memory = fixture.path().join("memory");
    mount_tmpfs(&memory);
    fs::create_dir(memory.join("landing")).unwrap();
    fs::create_dir(memory.join("objects")).unwrap();
    let used = || {
        let found = rustix::fs::statvfs(&memory).unwrap();
        found.f_blocks - found.f_bfree
    };
    let empty = used();
    fixture.put_all("memory/objects");
    let (registry, metrics, _worker) = registry(&fixture);
    let spec = fixture.spec("view");
    registry.mount(spec.clone()).await.unwrap();
    assert!(is_readable(&fixture, &spec));
    let mut ids = Vec::new();
    for file in &fixture.files {
        fs::remove_file(memory.join("objects").join(file.id.path())).unwrap();
        ids.push(file.id);
    }
    assert!(used() >= empty + 50);
    let stranger = ObjectId::from_bytes([7; 16]);
    registry.release(&[stranger]).await.unwrap();
    assert_eq!(metrics.remounts(), 0, "no view can have it");
    let halves = ids.split_at(25);
    let (one, other) = tokio::join!(registry.release(halves.0), registry.release(halves.1));
    one.unwrap();
    other.unwrap();
    assert!(used() < empty + 50);
    assert!((1..=2).contains(&metrics.remounts()));
    registry.unmount(spec.target, InUse::Refuse).await.unwrap();
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_resolved_to_fuse_becomes_native_after_its_object_is_settled() {
    let fixture = Fixture::new(1);
    let file = &fixture.files[0];
    let (registry, metrics, _worker) = registry(&fixture);
    let spec = fixture.spec("view");
    registry.mount(spec.clone()).await.unwrap();
    let path = spec.target.join(&file.name);
    let through_fuse = fixture.put("fuse/objects", file);
    fs::write(through_fuse, vec![b'F'; file.content.len()]).unwrap();
    assert_eq!(fs::read(&path).unwrap()[0], b'F');
    fixture.put("memory/objects", file);
    assert_eq!(
        fs::read(&path).unwrap()[0],
        b'F',
        "the kernel stays with the layer in which it found the file"
    );
    registry.object_completed(file.id, file.content.len() as u64);
    // Not by reading it: what is in use stays as it is.
    let remounted = async {
        while metrics.remounts() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), remounted)
        .await
        .unwrap();
    assert_eq!(fs::read(&path).unwrap(), file.content);
    registry.unmount(spec.target, InUse::Refuse).await.unwrap();
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_adopts_views_and_counts_their_opens_again() {
    let fixture = Fixture::new(20);
    fixture.put_all("memory/objects");
    let spec = fixture.spec("view");
    let (predecessor, _metrics, _worker) = registry(&fixture);
    predecessor.mount(spec.clone()).await.unwrap();
    predecessor.stop().await;
    drop(predecessor);
    assert!(is_readable(&fixture, &spec), "a view needs no registry");

    let (registry, metrics, worker) = registry(&fixture);
    assert!(!registry.adopt(fixture.spec("other")).await.unwrap());
    assert!(fixture.mounts().contains(&spec.target));
    assert!(registry.adopt(spec.clone()).await.unwrap());
    assert_eq!(worker.retained.lock().last(), Some(&generations(&[1])));
    assert!(is_readable(&fixture, &spec));
    registry.count_now().await.unwrap();
    assert_eq!(worker.opens(), 20);
    let ids: Vec<_> = fixture.files.iter().map(|file| file.id).collect();
    registry.release(&ids).await.unwrap();
    assert_eq!(metrics.remounts(), 1);
    registry.unmount(spec.target, InUse::Refuse).await.unwrap();
    assert!(fixture.mounts().is_empty());
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_of_the_fuse_mount_is_a_view_too() {
    let fixture = Fixture::new(1);
    let fuse_root = fixture.path().join("fuse");
    mount_tmpfs(&fuse_root);
    fs::create_dir(fuse_root.join("gen-1")).unwrap();
    fs::write(fuse_root.join("gen-1/file"), "content").unwrap();
    let target = fixture.spec("view").target;
    let spec = BindSpec {
        tree: fuse_root.join("gen-1"),
        target: target.clone(),
    };
    let (registry, _metrics, worker) = registry(&fixture);
    registry.bind(spec.clone(), Some(Generation(1))).await.unwrap();
    assert_eq!(fs::read(target.join("file")).unwrap(), b"content");
    let refused = fs::write(target.join("file"), "x").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    registry.stop().await;

    let (successor, _metrics, other_worker) = self::registry(&fixture);
    let other = BindSpec {
        tree: fuse_root.join("live"),
        target: target.clone(),
    };
    let refused = successor.adopt_bind(other, fuse_root.clone(), None).await;
    assert!(matches!(refused, Err(ViewError::Occupied { .. })));
    assert!(
        successor
            .adopt_bind(spec, fuse_root, Some(Generation(1)))
            .await
            .unwrap()
    );
    assert_eq!(other_worker.retained.lock().last(), Some(&generations(&[1])));
    successor.unmount(target.clone(), InUse::Refuse).await.unwrap();
    assert_eq!(target.read_dir().unwrap().count(), 0);
    assert_eq!(
        worker.retained.lock().last(),
        Some(&generations(&[1])),
        "the first receives no more reports"
    );
    successor.stop().await;
}
