//! What tests may rely on in the test cluster, and the chart on a real API server.
//!
//! Each suite is one test: its checks follow each other on one cluster, and each is named on a line. Both need root and what
//! `scripts/deps cluster` builds.

#![expect(
    clippy::print_stdout,
    reason = "each check is named, in tests' own functions as well"
)]

mod archives;
mod chart;
mod checks;
mod dashboard;
mod self_test;
