//! `make demo-local`: a bucket becomes a local directory, shown on a real S3 server, with every byte checked.
//!
//! It starts versitygw with credentials of its own, uploads a data set that follows from a seed, mounts it with the
//! real `millpond mount`, reads all of it three times in random order beside the same reads from the local disk, kills
//! the mount's server in the middle of the last pass, and takes everything away again: also where it fails, and on
//! Ctrl-C.

#![forbid(unsafe_code)]

mod bucket;
mod dataset;
mod epoch;
mod interrupt;
mod metrics;
mod mounted;
mod report;
mod run;
mod server;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match run::run(&run::Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::complain(format_args!("\nerror: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
