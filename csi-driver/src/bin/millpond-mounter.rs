//! Mounter of a node: makes the mount calls that may wait for the driver itself.

use anyhow::Result;
use clap::Parser;
use millpond_fs::mounter::{MounterOptions, listen};

fn main() -> Result<()> {
    let options = MounterOptions::parse();
    millpond_process::telemetry::init(&millpond_process::telemetry::TelemetryOptions::default())?;
    millpond_process::raise_file_limit();
    Ok(listen(&options)?)
}
