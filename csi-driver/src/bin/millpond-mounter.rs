//! Makes the mounts of a driver that could wait for that driver.

use anyhow::Result;
use clap::Parser;
use millpond_fs::mounter::{MounterOptions, listen};

fn main() -> Result<()> {
    let options = MounterOptions::parse();
    millpond_process::telemetry::init(&millpond_process::telemetry::TelemetryOptions::default())?;
    millpond_process::raise_file_limit();
    Ok(listen(&options)?)
}
