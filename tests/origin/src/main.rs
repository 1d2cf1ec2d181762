//! `millpond-origin`: the tests' S3 server as a process of its own, for measurements that must not share one.
//!
//! It serves until its standard input ends, so that it never outlives who started it. The first line of its output is
//! its endpoint. `GET /-/counters` gives the counters as JSON, `POST /-/reset` sets them to zero.

use clap::Parser;

fn main() -> anyhow::Result<()> {
    origin::command::Command::parse().run()
}
