//! The driver as a process.

use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use millpond_cluster::Identity;
use tokio::sync::watch;
use tracing::error;

use crate::node::Workers;
use crate::options::DriverOptions;
use crate::run::run;

/// More threads than this wait for each other only: the kernel reads what is cached.
const MAX_THREADS: usize = 8;

/// Runs a driver by the process's flags until SIGTERM, and ends the process without destructors.
/// `workers` makes the lines to workers, from the flags and over certificates as they come.
pub fn main<F>(workers: F) -> !
where
    F: FnOnce(&DriverOptions, watch::Receiver<Option<Arc<Identity>>>) -> Arc<dyn Workers>,
{
    let options = DriverOptions::parse();
    let code = match serve(options, workers) {
        Ok(()) => 0,
        Err(error) => {
            error!(error = format!("{error:#}"), "the driver ends");
            1
        }
    };
    // Destructors would unmount, or wait for reads that only the next driver can answer.
    std::process::exit(code)
}

fn serve<F>(options: DriverOptions, workers: F) -> anyhow::Result<()>
where
    F: FnOnce(&DriverOptions, watch::Receiver<Option<Arc<Identity>>>) -> Arc<dyn Workers>,
{
    millpond_process::telemetry::init(&millpond_process::telemetry::TelemetryOptions::default())?;
    millpond_process::raise_file_limit();
    millpond_process::tls::install();
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.clamp(2, MAX_THREADS))
        .thread_name("millpond")
        .enable_all()
        .build()
        .context("failed to start the driver's threads")?;
    let flags = options.clone();
    let ended = runtime.block_on(run(options, |identity| workers(&flags, identity)));
    // Its threads may wait for requests that nobody answers here any more, and its tasks hold mounts.
    std::mem::forget(runtime);
    Ok(ended?)
}
