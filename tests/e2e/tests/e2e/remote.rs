//! A driver and a worker in two processes' clothes: the real Dataset behind its unix socket, the real remote worker in
//! front of it. What a whole cluster would hide is looked at here: restarts of the worker between and within questions.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cache_worker::service::{Datasets, Drivers, LocalIncoming, ServedDataset, WorkerService};
use csi_driver::node::NodeWorker;
use csi_driver::remote::{RemoteOptions, RemoteWorker, WorkerLocation};
use millpond_cache::dataset::{Dataset, DatasetOptions, MountOptions};
use millpond_cache::metrics::WorkerMetrics;
use millpond_cache::source::SourceOptions;
use millpond_catalog::Catalog;
use millpond_core::ObjectId;
use millpond_core::conformance::{self, Sample, WorkerFixture};
use millpond_core::{
    Inode, LandOutcome, LocalCopy, ObjectRef, ReadError, ReleaseError, StreamId, TierDirectories, Views,
    Worker,
};
use millpond_wire::worker::worker_server::WorkerServer;
use origin::{Fault, Kind, Origin, OriginOptions, Rule};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;

const UID: &str = "0b7c1ef0-9a51-4c1e-8f5e-7a9d3d1f2b3c";
const BUCKET: &str = "data";
const LARGE: u64 = 20 << 20;

/// No test waits longer; a guard, never a measure.
const GUARD: Duration = Duration::from_secs(60);

struct Rig {
    origin: Origin,
    place: TempDir,
}

/// A worker that serves, until [`Self::end`].
struct Running {
    datasets: Arc<Datasets>,
    dataset: Arc<Dataset>,
    drivers: Arc<Drivers>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What a driver's views are asked for.
#[derive(Default)]
struct Asked(Mutex<Vec<ObjectId>>);

#[async_trait]
impl Views for Asked {
    async fn release(&self, unlinked: &[ObjectId]) -> Result<(), ReleaseError> {
        self.0.lock().extend_from_slice(unlinked);
        Ok(())
    }
}

impl Rig {
    fn new() -> Self {
        let origin = Origin::spawn(OriginOptions::default()).expect("an origin");
        origin.create_bucket(BUCKET);
        for file in 0..20 {
            origin.put_generated(BUCKET, format!("small/{file}"), file + 1, 10_000);
        }
        origin.put_generated(BUCKET, "large", 99, LARGE);
        let place = tempfile::Builder::new()
            .prefix("millpond-remote-")
            .tempdir()
            .expect("a directory");
        Self { origin, place }
    }

    fn cache(&self) -> PathBuf {
        self.place.path().join("cache")
    }

    fn options(&self) -> DatasetOptions {
        let source = SourceOptions {
            url: format!("s3://{BUCKET}"),
            endpoint: Some(self.origin.url()),
            region: Some("us-east-1".to_owned()),
            anonymous: true,
            ..SourceOptions::default()
        };
        let mut options = DatasetOptions::new(
            vec![MountOptions::at_root(source)],
            self.cache(),
            "boot".to_owned(),
        );
        options.disk_limit.bytes = Some(1 << 30);
        options
    }

    async fn worker(&self, options: DatasetOptions) -> Running {
        let drivers = Arc::new(Drivers::default());
        let metrics = WorkerMetrics::new(&prometheus::Registry::new()).expect("metrics");
        let views = Arc::clone(&drivers) as Arc<dyn Views>;
        let dataset = Dataset::open(options, views, &metrics).await.expect("open");
        drivers.connect(&dataset);
        dataset.start().await.expect("a first catalog");
        let datasets = Arc::new(Datasets::default());
        let served = ServedDataset {
            dataset: Arc::clone(&dataset),
            drivers: Arc::clone(&drivers),
        };
        datasets.put(UID.to_owned(), served);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let incoming = LocalIncoming::bind(&self.place.path().join("worker.sock")).expect("a socket");
        let service = WorkerServer::new(WorkerService::new(Arc::clone(&datasets), tasks.clone()))
            .max_encoding_message_size(8 << 20);
        let ended = stop.clone();
        tasks.spawn(async move {
            // As a kill would: requests in flight are cut off.
            tokio::select! {
                served = Server::builder().add_service(service).serve_with_incoming(incoming) => served.expect("serve"),
                () = ended.cancelled() => {}
            }
        });
        Running {
            datasets,
            dataset,
            drivers,
            stop,
            tasks,
        }
    }

    fn driver(&self, views: Arc<dyn Views>) -> Arc<RemoteWorker> {
        let options = RemoteOptions {
            dataset_uid: UID.to_owned(),
            driver: 7,
            reach: WorkerLocation::Here(self.place.path().join("worker.sock")),
            tiers: vec![TierDirectories {
                objects: self.cache().join("objects"),
                landing: self.cache().join("landing"),
            }],
            copies: self.place.path().join("copies"),
            timeout: GUARD,
        };
        RemoteWorker::start(options, views).expect("a driver")
    }

    fn expected(&self, seed: u64, range: std::ops::Range<u64>) -> Bytes {
        origin::data::bytes(seed, range)
    }
}

impl Running {
    async fn end(self) {
        self.stop.cancel();
        self.datasets.remove(UID);
        self.drivers.stop();
        self.dataset.stop().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(GUARD, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited too long for {what}"),
    }
}

/// The object of a file at a path, by the driver's own copy of the newest catalog.
async fn object(driver: &RemoteWorker, path: &[&str]) -> ObjectRef {
    let mut catalogs = driver.catalogs();
    let file = within("a catalog", catalogs.wait_for(Option::is_some))
        .await
        .expect("it lives")
        .clone()
        .expect("is some");
    let catalog = Catalog::open(&file.image, &file.index).expect("a catalog");
    let image = catalog.image();
    let found = path.iter().fold(image.root(), |directory, name| {
        image
            .lookup(directory, name.as_bytes())
            .expect("read")
            .expect("the name is there")
            .nid
    });
    ObjectRef {
        generation: file.generation,
        inode: Inode(found.0),
        id: image.object_id(found).expect("an object"),
        size_bytes: image.inode(found).expect("an inode").size_bytes,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn small_files_land_and_large_ones_are_read_over_the_socket() {
    let rig = Rig::new();
    let worker = rig.worker(rig.options()).await;
    let driver = rig.driver(Arc::new(Asked::default()));

    let small = object(&driver, &["small", "3"]).await;
    assert!(matches!(
        driver.open_local(small).await,
        Ok(LocalCopy::Incomplete)
    ));
    let origin_opens = || worker.dataset.stats().read.origin_opens;
    let before = origin_opens();
    assert_eq!(
        driver.fetch_to_landing(small).await.expect("land"),
        LandOutcome::Landed
    );
    assert_eq!(origin_opens(), before + 1, "fetched for this lookup");
    let Ok(LocalCopy::Complete(file)) = driver.open_local(small).await else {
        panic!("it has landed");
    };
    let mut content = vec![0; 10_000];
    file.read_exact_at(&mut content, 0).expect("read");
    assert!(content == rig.expected(4, 0..10_000));

    let large = object(&driver, &["large"]).await;
    assert_eq!(
        driver.fetch_to_landing(large).await.expect("land"),
        LandOutcome::ThroughFuse
    );
    for start in (0..LARGE).step_by(1 << 20) {
        let data = driver
            .read(large, StreamId(1), start..start + (1 << 20))
            .await
            .expect("read");
        assert!(
            *data == rig.expected(99, start..start + (1 << 20))[..],
            "at {start}"
        );
    }
    let end = driver
        .read(large, StreamId(1), LARGE - 10..LARGE + 10)
        .await
        .expect("read");
    assert!(*end == rig.expected(99, LARGE - 10..LARGE)[..]);
    driver.close().await;
    assert!(matches!(
        driver.read(large, StreamId(1), 0..1).await,
        Err(ReadError::Stopping)
    ));
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_behind_a_socket_and_its_drivers_do_what_all_must() {
    let rig = Rig::new();
    let worker = rig.worker(rig.options()).await;
    let driver = rig.driver(Arc::new(Asked::default()));
    let complete = object(&driver, &["small", "3"]).await;
    let missing = object(&driver, &["large"]).await;
    driver.fetch_to_landing(complete).await.expect("land");
    let fixture = WorkerFixture {
        worker: &*driver,
        complete: Sample {
            object: complete,
            content: rig.expected(4, 0..10_000),
        },
        missing: Sample {
            object: missing,
            content: rig.expected(99, 0..LARGE),
        },
        unknown: Some(ObjectRef {
            id: ObjectId::from_bytes([7; 16]),
            ..missing
        }),
    };
    within("the suite of a worker", conformance::worker(&fixture)).await;
    within(
        "the suite of views",
        conformance::views(&*worker.drivers, &[complete.id]),
    )
    .await;
    driver.close().await;
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_restarted_costs_a_pause_and_no_error() {
    let rig = Rig::new();
    let mut worker = rig.worker(rig.options()).await;
    let driver = rig.driver(Arc::new(Asked::default()));
    let large = object(&driver, &["large"]).await;
    let mut readers = JoinSet::new();
    {
        let (driver, seed) = (Arc::clone(&driver), 99);
        readers.spawn(async move {
            for start in (0..LARGE).step_by(256 << 10) {
                let end = start + (256 << 10);
                let data = driver.read(large, StreamId(1), start..end).await.expect("read");
                assert!(*data == origin::data::bytes(seed, start..end)[..], "at {start}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        worker.end().await;
        worker = rig.worker(rig.options()).await;
    }
    within("the reader", readers.join_all()).await;
    driver.close().await;
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_without_its_worker_has_the_catalog_and_what_is_cached() {
    let rig = Rig::new();
    let worker = rig.worker(rig.options()).await;
    let before = rig.driver(Arc::new(Asked::default()));
    let small = object(&before, &["small", "0"]).await;
    before.fetch_to_landing(small).await.expect("land");
    before.close().await;
    worker.end().await;

    let driver = rig.driver(Arc::new(Asked::default()));
    assert_eq!(object(&driver, &["small", "0"]).await, small);
    assert!(matches!(
        driver.open_local(small).await,
        Ok(LocalCopy::Complete(_))
    ));
    assert!(driver.reachable().is_err());
    driver.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_worker_is_told_what_is_open() {
    let rig = Rig::new();
    let worker = rig.worker(rig.options()).await;
    let driver = rig.driver(Arc::new(Asked::default()));
    let small = object(&driver, &["small", "0"]).await;
    driver.fetch_to_landing(small).await.expect("land");
    driver.file_opened(small, StreamId(5), None);
    worker.end().await;
    // With room for a few files only: what is open is not evicted for others.
    let mut options = rig.options();
    options.eviction = millpond_cache::Eviction::Lru;
    options.disk_limit.bytes = Some(4 << 20);
    let worker = rig.worker(options).await;
    within("the driver", async {
        while worker.drivers.session_count() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    within("the worker's knowledge", async {
        while !worker.drivers.is_open(small.id) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    driver.file_closed(small, StreamId(5));
    within("the worker's knowledge", async {
        while worker.drivers.is_open(small.id) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    driver.close().await;
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn eviction_asks_the_driver_to_let_go_and_fails_without_one() {
    let rig = Rig::new();
    let worker = rig.worker(rig.options()).await;
    let asked = Arc::new(Asked::default());
    let driver = rig.driver(Arc::clone(&asked) as _);
    let small = object(&driver, &["small", "0"]).await;
    worker
        .drivers
        .release(&[small.id])
        .await
        .expect("the driver answers");
    assert_eq!(*asked.0.lock(), [small.id]);
    driver.close().await;
    within("the end of the session", async {
        while worker.drivers.session_count() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let error = worker
        .drivers
        .release(&[small.id])
        .await
        .expect_err("no driver is there");
    assert!(
        error.to_string().contains("no driver of this node attends"),
        "{error}"
    );
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_fails_is_the_readers_error_and_not_a_reason_to_ask_for_ever() {
    let rig = Rig::new();
    let mut options = rig.options();
    options.origin.deadline = Duration::from_millis(300);
    let worker = rig.worker(options).await;
    let driver = rig.driver(Arc::new(Asked::default()));
    let large = object(&driver, &["large"]).await;
    rig.origin.faults().add(Rule::new(Fault::Gone).on(&[Kind::Get]));
    let error = within("the error", driver.read(large, StreamId(1), 0..10))
        .await
        .expect_err("the source is down");
    assert!(matches!(error, ReadError::Unavailable { .. }), "{error}");
    driver.retain_generations(&BTreeSet::new());
    driver.close().await;
    worker.end().await;
}
