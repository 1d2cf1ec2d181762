//! `millpond-cluster`: a real Kubernetes on one machine. See the library.

#![expect(clippy::print_stderr, reason = "a command prints why it failed")]

mod command;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match command::Program::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("millpond-cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}
