//! The FUSE server on a real kernel: root and `/dev/fuse` are needed, and each test reports where they are missing.

mod idmap;
mod io;
mod live;
mod objects;
mod reads;
mod take_over;
mod tree;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::testing::{FakeWorker, TestFile, write_catalog};
use super::{FuseMetrics, FuseOptions, FuseServer, Layout};

/// How long a test waits for an expected event; only a guard against hanging.
const GUARD: Duration = Duration::from_secs(60);

/// A mount in this process. The server's thread and the reader's are different ones.
struct Mount {
    server: FuseServer,
    worker: Arc<FakeWorker>,
    metrics: FuseMetrics,
    directory: TempDir,
    _runtime: Runtime,
}

#[derive(Clone, Copy)]
struct Setup {
    passthrough: bool,
    layout: Layout,
    idle: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            passthrough: true,
            layout: Layout::Directories,
            idle: 0,
        }
    }
}

/// Returns whether this machine can mount; reports if not.
fn can_mount() -> bool {
    let can = rustix::process::geteuid().is_root() && File::open("/dev/fuse").is_ok();
    if !can {
        eprintln!("not run: needs root and /dev/fuse");
    }
    can
}

impl Mount {
    fn new(files: &[TestFile], setup: Setup) -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        for name in ["catalog", "mnt", "objects"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let newest = write_catalog(&directory.path().join("catalog"), 1, files);
        let worker = FakeWorker::new(directory.path(), Some(newest), Duration::ZERO);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let registry = prometheus::Registry::new();

        let metrics = FuseMetrics::register(&registry).unwrap();
        let server = FuseServer::mount(FuseOptions {
            mountpoint: directory.path().join("mnt"),
            name: "test".to_owned(),
            layout: setup.layout,
            worker: Arc::clone(&worker) as _,
            runtime: runtime.handle().clone(),
            passthrough: setup.passthrough,
            idle_backing_ids: setup.idle,
            threads: 2,
            metrics: metrics.clone(),
            kernel_views: None,
            keeper: None,
        })
        .unwrap();
        Some(Self {
            server,
            worker,
            metrics,
            directory,
            _runtime: runtime,
        })
    }

    fn path(&self, path: &str) -> PathBuf {
        self.server.mountpoint().join(path)
    }

    fn show(&self, generation: u64, files: &[TestFile]) {
        self.worker.show(write_catalog(
            &self.directory.path().join("catalog"),
            generation,
            files,
        ));
    }
}

fn metrics() -> FuseMetrics {
    let registry = prometheus::Registry::new();
    FuseMetrics::register(&registry).unwrap()
}

/// Waits until a condition holds.
fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < GUARD, "{what}: not in time");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
