//! An origin with objects made from seeds, a cache directory, and Datasets over both.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use millpond_cache::dataset::{Dataset, DatasetOptions, MountOptions};
use millpond_cache::metrics::WorkerMetrics;
use millpond_cache::source::SourceOptions;
use millpond_catalog::{Catalog, Kind, Nid};
use millpond_core::{CatalogFile, Inode, LocalCopy, NoViews, ObjectRef, ReadError, StreamId, Worker};
use origin::{Counters, Origin, OriginOptions};
use tempfile::TempDir;

pub(crate) const BUCKET: &str = "data";
pub(crate) const MIB: u64 = 1 << 20;

/// Longer than any test takes.
pub(crate) const GUARD: Duration = Duration::from_secs(120);

pub(crate) struct Pond {
    pub(crate) origin: Origin,
    pub(crate) cache: TempDir,
    pub(crate) objects: BTreeMap<String, (u64, u64)>,
}

static STREAM: AtomicU64 = AtomicU64::new(1);

pub(crate) fn stream() -> StreamId {
    StreamId(STREAM.fetch_add(1, Ordering::Relaxed))
}

/// Metrics that no test reads.
pub(crate) fn metrics() -> WorkerMetrics {
    WorkerMetrics::new(&prometheus::Registry::new()).expect("new names")
}

impl Pond {
    /// An origin that holds `objects`: key and size.
    pub(crate) fn new(objects: impl IntoIterator<Item = (String, u64)>) -> Self {
        let origin = Origin::spawn(OriginOptions::default()).expect("an origin");
        origin.create_bucket(BUCKET);
        let mut made = BTreeMap::new();
        for (seed, (key, size)) in (1_u64..).zip(objects) {
            origin.put_generated(BUCKET, &key, seed, size);
            made.insert(key, (seed, size));
        }
        let cache = TempDir::new().expect("a directory");
        Self {
            origin,
            cache,
            objects: made,
        }
    }

    pub(crate) fn small(files: u64, size: u64) -> Self {
        Self::new((0..files).map(|file| (format!("dir/file-{file:05}"), size)))
    }

    /// A bucket of this origin or a prefix of it.
    pub(crate) fn source(&self, url: &str) -> SourceOptions {
        SourceOptions {
            url: url.to_owned(),
            endpoint: Some(self.origin.url()),
            region: Some("us-east-1".to_owned()),
            anonymous: true,
            ..SourceOptions::default()
        }
    }

    pub(crate) fn options(&self) -> DatasetOptions {
        let mount = MountOptions::at_root(self.source(&format!("s3://{BUCKET}")));
        let mut options =
            DatasetOptions::new(vec![mount], self.cache.path().join("cache"), "boot".to_owned());
        options.disk_limit.bytes = Some(1 << 30);
        options.changed_interval = Duration::from_millis(10);
        options
    }

    /// A started Dataset with these options.
    pub(crate) async fn start(&self, options: DatasetOptions) -> Arc<Dataset> {
        let dataset = Dataset::open(options, Arc::new(NoViews), &metrics())
            .await
            .expect("open");
        dataset.start().await.expect("a first catalog");
        dataset
    }

    pub(crate) fn counters(&self) -> Counters {
        self.origin.counters()
    }

    pub(crate) fn total_bytes(&self) -> u64 {
        self.objects.values().map(|(_, size)| size).sum()
    }

    pub(crate) fn expected(&self, key: &str, range: Range<u64>) -> Bytes {
        let (seed, _size) = self.objects[key];
        origin::data::bytes(seed, range)
    }

    /// Reads a complete object in steps and compares it.
    pub(crate) async fn check(&self, dataset: &Dataset, key: &str, object: ObjectRef, step: u64) {
        let stream = stream();
        let mut at = 0;
        while at < object.size_bytes {
            let end = (at + step).min(object.size_bytes);
            let data = dataset.read(object, stream, at..at + step).await.expect("read");
            assert!(*data == self.expected(key, at..end)[..], "{key} at {at}");
            at = end;
        }
        dataset.file_closed(object, stream);
    }

    /// Looks an object up as a kernel view does, then reads it from the file or through FUSE, and compares it.
    pub(crate) async fn open_and_check(&self, dataset: &Dataset, key: &str, object: ObjectRef) {
        dataset.fetch_to_landing(object).await.expect("land");
        match dataset.open_local(object).await.expect("local") {
            LocalCopy::Complete(file) => {
                let mut content = vec![0; usize::try_from(object.size_bytes).expect("it fits")];
                std::os::unix::fs::FileExt::read_exact_at(&*file, &mut content, 0).expect("read the file");
                assert!(content == self.expected(key, 0..object.size_bytes), "{key}");
            }
            LocalCopy::Incomplete => self.check(dataset, key, object, 128 << 10).await,
        }
    }
}

/// The newest catalog's files.
pub(crate) fn newest(dataset: &Dataset) -> Arc<CatalogFile> {
    let newest = dataset.catalogs().borrow().clone();
    newest.expect("there is a catalog")
}

/// All objects of the newest catalog by path.
pub(crate) fn tree(dataset: &Dataset) -> BTreeMap<String, ObjectRef> {
    let file = newest(dataset);
    let catalog = Catalog::open(&file.image, &file.index).expect("the catalog");
    let mut objects = BTreeMap::new();
    walk(&catalog, &file, catalog.image().root(), "", &mut objects);
    objects
}

fn walk(
    catalog: &Catalog,
    file: &CatalogFile,
    directory: Nid,
    path: &str,
    objects: &mut BTreeMap<String, ObjectRef>,
) {
    let image = catalog.image();
    for entry in image.read_dir(directory, 0).expect("a directory") {
        let entry = entry.expect("an entry");
        if matches!(entry.name, b"." | b"..") {
            continue;
        }
        let name = std::str::from_utf8(entry.name).expect("a name");
        let path = if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}/{name}")
        };
        match entry.kind {
            Kind::Directory => walk(catalog, file, entry.nid, &path, objects),
            Kind::File => {
                let object = ObjectRef {
                    generation: file.generation,
                    inode: Inode(entry.nid.0),
                    id: image.object_id(entry.nid).expect("an id"),
                    size_bytes: image.inode(entry.nid).expect("an inode").size_bytes,
                };
                objects.insert(path, object);
            }
        }
    }
}

/// Whether an object is completely cached.
pub(crate) async fn is_cached(dataset: &Dataset, object: ObjectRef) -> bool {
    matches!(dataset.open_local(object).await, Ok(LocalCopy::Complete(_)))
}

/// Reads the first bytes of an object.
pub(crate) async fn peek(dataset: &Dataset, object: ObjectRef) -> Result<Vec<u8>, ReadError> {
    let stream = stream();
    let data = dataset
        .read(object, stream, 0..16)
        .await
        .map(|data| data.to_vec());
    dataset.file_closed(object, stream);
    data
}

/// Waits until `done` returns true.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut done: impl FnMut() -> F) {
    let wait = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(GUARD, wait).await.is_ok(),
        "timed out waiting for {what}"
    );
}
