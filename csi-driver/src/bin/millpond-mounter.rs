//! Makes the mounts of a driver that could wait for that driver.

use anyhow::Result;
use clap::Parser;
use csi_driver::mounter::{MounterOptions, listen};

fn main() -> Result<()> {
    let options = MounterOptions::parse();
    runtime::telemetry::init(&runtime::telemetry::TelemetryOptions::default())?;
    runtime::raise_file_limit();
    Ok(listen(&options)?)
}
