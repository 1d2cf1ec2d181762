//! The driver as a process.

use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use tracing::error;

use crate::options::DriverOptions;
use crate::remote::RemoteWorkers;
use crate::run::run;

/// More threads than this wait for each other only: the kernel reads what is cached.
const MAX_THREADS: usize = 8;

/// Runs a driver by the process's flags until SIGTERM, and ends the process without destructors.
pub fn main() -> ! {
    let code = match serve(DriverOptions::parse()) {
        Ok(()) => 0,
        Err(error) => {
            error!(error = format!("{error:#}"), "the driver failed");
            1
        }
    };
    // Destructors would unmount, or wait for reads that only the next driver can answer.
    std::process::exit(code)
}

fn serve(options: DriverOptions) -> anyhow::Result<()> {
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
    let ended = runtime.block_on(run(options, |identity| Arc::new(RemoteWorkers::new(identity))));
    // Its threads may wait for requests that nobody answers here any more, and its tasks hold mounts.
    std::mem::forget(runtime);
    Ok(ended?)
}
