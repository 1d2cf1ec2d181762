//! The tests' own S3 server beside a real one, and what only it has.
#![expect(clippy::unwrap_used, reason = "a step that fails is the test's failure")]

mod conformance;
mod faults;
mod own_server;
