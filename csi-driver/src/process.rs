//! Start and exit of a driver's process.

use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use tracing::error;

use crate::options::DriverOptions;
use crate::remote::RemoteWorkers;
use crate::run::run;

/// Most worker threads: more only contend, since the kernel itself reads cached data.
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
    // Destructors would unmount, or wait for reads that only the next driver can serve.
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
    // Its threads may wait for requests that this process no longer serves, and its tasks own mounts.
    std::mem::forget(runtime);
    Ok(ended?)
}
