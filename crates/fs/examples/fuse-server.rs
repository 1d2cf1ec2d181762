//! A FUSE server with a worker without sources, whose supervisor and keeper is a test that starts and kills it.
//!
//! `fuse-server OPTIONS`, as JSON; the socket to the keeper is its standard input.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use millpond_core::{CatalogFile, Generation};
use millpond_fs::fuse::testing::{FakeWorker, Fault, ServerOptions, TestFile};
use millpond_fs::fuse::{FuseMetrics, FuseOptions, FuseServer, Layout};
use millpond_fs::keeper::KeeperClient;
use rustix::process::{Signal, set_parent_process_death_signal};

fn main() -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("failed to set the parent death signal")?;
    let options = std::env::args().nth(1).context("fuse-server OPTIONS")?;
    let options: ServerOptions = serde_json::from_str(&options).context("the options are not JSON")?;
    let keeper = Arc::new(KeeperClient::from_stdin().context("failed to connect to the keeper")?);
    let catalog = options.directory.join("catalog");
    let newest = CatalogFile {
        generation: Generation(options.newest),
        image: catalog.join(format!("gen-{}.erofs", options.newest)),
        index: catalog.join(format!("gen-{}.index", options.newest)),
    };
    let delay = Duration::from_millis(options.delay_ms);
    let worker = FakeWorker::new(&options.directory, Some(Arc::new(newest)), delay);
    if let Some((path, size)) = &options.stopping {
        worker.fail(TestFile::new(path, *size).id(), Some(Fault::Stopping));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("failed to start")?;
    let metrics =
        FuseMetrics::register(&prometheus::Registry::new()).context("failed to register metrics")?;
    let fuse = || FuseOptions {
        mountpoint: options.directory.join("mnt"),
        name: "test".to_owned(),
        layout: Layout::Directories,
        worker: Arc::clone(&worker) as _,
        runtime: runtime.handle().clone(),
        passthrough: options.passthrough,
        idle_backing_ids: options.idle,
        threads: 2,
        metrics: metrics.clone(),
        kernel_views: None,
        keeper: Some(Arc::clone(&keeper)),
    };
    let server = match FuseServer::take_over(fuse()).context("failed to take over the mount")? {
        Some(server) => server,
        None => FuseServer::mount(fuse()).context("failed to mount")?,
    };
    runtime.block_on(server.wait());
    Ok(())
}
