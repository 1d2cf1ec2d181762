//! `millpond-cluster`: a real Kubernetes on one machine. See the library.

mod command;

use clap::Parser;

fn main() -> anyhow::Result<()> {
    command::Program::parse().run()
}
