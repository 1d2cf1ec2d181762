//! The figures of a cluster: real API server, kubelets, pods, S3 server and Prometheus, all on this machine.

mod at_rest;
mod bound;
mod first_byte;
mod hits;
mod memory;
mod pause;
mod pods;
mod reading;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use harness::report::complain;
use kubernetes_tests::{POOL, World};

use crate::report::Report;
use crate::row::Row;

/// What is measured at once and can be repeated alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Figure {
    /// From a Dataset's creation to Bound: one of 1,000 files, and a thousand at once; then the controller's memory and the writes
    /// of a minute at rest.
    Bound,
    /// From a pod's creation to its first byte, beside one with a hostPath.
    FirstByte,
    /// In a pod: a large file and many small ones, beside the node's disk.
    Reading,
    /// The CSI driver with ten volumes, and the keeper.
    Memory,
    /// The hit ratio in Prometheus beside the requests that the S3 server saw.
    Hits,
    /// The longest pause of a read of what is not cached: the driver upgraded, its pod deleted.
    Pause,
}

/// Measures Millpond in a Kubernetes that comes up for it, with the image `target/image/millpond.tar`. Needs root.
#[derive(Debug, Parser)]
#[command(name = "millpond-cluster-figures")]
pub struct ClusterCommand {
    /// Measure only this; may be repeated.
    #[arg(long, value_enum)]
    only: Vec<Figure>,
    /// Also write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Small numbers, to see that everything runs. The figures mean nothing then.
    #[arg(long)]
    quick: bool,
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    rounds: usize,
    datasets: usize,
    rest_seconds: u64,
    large_mib: u64,
    small_files: u64,
}

impl Sizes {
    const FULL: Self = Self {
        rounds: 7,
        datasets: 1_000,
        rest_seconds: 120,
        large_mib: 1_024,
        small_files: 10_000,
    };
    const QUICK: Self = Self {
        rounds: 2,
        datasets: 20,
        rest_seconds: 10,
        large_mib: 32,
        small_files: 200,
    };
}

impl ClusterCommand {
    /// Measures.
    ///
    /// Ends with success also where goals are missed, and with failure where something could not be measured or a
    /// byte was wrong.
    ///
    /// # Errors
    /// The cluster does not come up, or the figures cannot be written.
    pub fn run(self) -> Result<ExitCode> {
        let wanted = if self.only.is_empty() {
            Figure::value_variants()
        } else {
            &self.only
        };
        let sizes = if self.quick { Sizes::QUICK } else { Sizes::FULL };
        let world = World::start().context("failed to bring up a cluster with Millpond")?;
        // Room for all that is read.
        let tiers = "{\"spec\":{\"tiers\":[{\"medium\":\"Memory\",\"capacity\":\"64Mi\"},\
                     {\"medium\":\"Disk\",\"path\":\"/mnt/millpond\",\"capacity\":\"6Gi\",\"minFreePercent\":0}]}}";
        world
            .kubectl()
            .run(&["patch", "cachepool", POOL, "--type=merge", "-p", tiers])?;
        world.wait_ready()?;
        let mut report = Report::new(self.quick);
        let mut failed = false;
        let begun = Instant::now();
        for figure in wanted {
            let name = figure
                .to_possible_value()
                .map(|value| value.get_name().to_owned())
                .unwrap_or_default();
            complain(format_args!("{:>4} s  {name}", begun.elapsed().as_secs()));
            match figure.measure(&world, sizes) {
                Ok(rows) => report.add(&name, rows),
                Err(error) => {
                    failed = true;
                    complain(format_args!("error: {name}: {error:#}"));
                }
            }
            if let Some(file) = &self.json {
                report.write(file)?;
            }
        }
        writeln!(std::io::stdout(), "{}", report.table()).context("failed to print the figures")?;
        Ok(if failed {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }
}

impl Figure {
    fn measure(self, world: &World, sizes: Sizes) -> Result<Vec<Row>> {
        match self {
            Self::Bound => bound::measure(world, sizes),
            Self::FirstByte => first_byte::measure(world, sizes),
            Self::Reading => reading::measure(world, sizes),
            Self::Memory => memory::measure(world),
            Self::Hits => hits::measure(world, sizes),
            Self::Pause => pause::measure(world, sizes),
        }
    }
}
