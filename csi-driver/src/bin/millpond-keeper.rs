//! Holds the FUSE mounts of a node while its driver is away.

use anyhow::Result;
use clap::Parser;
use csi_driver::keeper::{KeeperOptions, listen};

fn main() -> Result<()> {
    let options = KeeperOptions::parse();
    runtime::telemetry::init(&runtime::telemetry::TelemetryOptions::default())?;
    runtime::raise_file_limit();
    Ok(listen(&options)?)
}
