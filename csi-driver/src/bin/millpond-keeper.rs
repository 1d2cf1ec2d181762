//! Keeper of a node: keeps the FUSE descriptors while no driver runs.

use anyhow::Result;
use clap::Parser;
use millpond_fs::keeper::{KeeperOptions, listen};

fn main() -> Result<()> {
    let options = KeeperOptions::parse();
    millpond_process::telemetry::init(&millpond_process::telemetry::TelemetryOptions::default())?;
    millpond_process::raise_file_limit();
    Ok(listen(&options)?)
}
