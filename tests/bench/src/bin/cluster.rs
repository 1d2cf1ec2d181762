//! `millpond-cluster-figures`: what Millpond reaches in a real Kubernetes on this machine, beside the goals. See the library.

use std::process::ExitCode;

use bench::ClusterCommand;
use clap::Parser;

fn main() -> anyhow::Result<ExitCode> {
    ClusterCommand::parse().run()
}
