//! Driver whose workers have no sources, for tests that start and kill it.

#![allow(missing_docs, reason = "support for tests, with self-explanatory names")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use millpond_core::{CatalogFile, Generation, Views};
use millpond_fs::fuse::testing::FakeWorker;
use serde::{Deserialize, Serialize};

use crate::node::{DatasetOnNode, NodeWorker, Workers};
use crate::{DriverOptions, RunError};

pub const NODE: &str = "node-a";

/// Options of the example `test-node`, as a driver.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TestDriverOptions {
    pub directory: PathBuf,
    pub kernel_views: bool,
    pub publish_timeout_secs: u64,
    /// Response delay of the worker.
    pub delay_ms: u64,
    /// Port of the metrics; 0: any.
    pub metrics_port: u16,
}

pub fn mounter_socket(directory: &Path) -> PathBuf {
    directory.join("run/mounter.sock")
}

/// Runs a driver until a signal stops it.
///
/// # Errors
/// As [`crate::run`].
pub async fn run(test: TestDriverOptions) -> Result<(), RunError> {
    let options = DriverOptions {
        node: NODE.to_owned(),
        kubelet_directory: test.directory.join("kubelet"),
        host_directory: test.directory.join("host"),
        tier_roots: vec![test.directory.join("disk")],
        controller: "127.0.0.1:1".to_owned(),
        metrics_address: ([127, 0, 0, 1], test.metrics_port).into(),
        keeper: None,
        mounter: mounter_socket(&test.directory),
        authorities: "/nowhere".into(),
        token: "/nowhere".into(),
        tier_owner: 65532,
        publish_timeout: Duration::from_secs(test.publish_timeout_secs),
        idle_unmount_delay: Duration::from_millis(300),
        no_kernel_views: !test.kernel_views,
    };
    crate::run(options, |_| Arc::new(FakeWorkers { test })).await
}

struct FakeWorkers {
    test: TestDriverOptions,
}

#[async_trait]
impl Workers for FakeWorkers {
    async fn worker(&self, dataset: DatasetOnNode, _views: Arc<dyn Views>) -> Arc<dyn NodeWorker> {
        let tier = self.test.directory.join("disk/pool").join(&dataset.uid);
        let delay = Duration::from_millis(self.test.delay_ms);
        FakeWorker::new(&tier, newest(&dataset.directory), delay)
    }
}

#[async_trait]
impl NodeWorker for FakeWorker {
    fn reachable(&self) -> Result<(), String> {
        Ok(())
    }

    async fn close(&self) {}
}

fn newest(directory: &Path) -> Option<Arc<CatalogFile>> {
    let generations = (1..10).rev();
    let mut files = generations.map(|generation| CatalogFile {
        generation: Generation(generation),
        image: directory.join(format!("gen-{generation}.erofs")),
        index: directory.join(format!("gen-{generation}.index")),
    });
    files.find(|file| file.image.exists()).map(Arc::new)
}
