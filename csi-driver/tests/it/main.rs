//! The node's small programs as real processes.
#![expect(clippy::unwrap_used, reason = "a test that cannot continue panics")]

mod keeper;
mod mounter;
mod program;
