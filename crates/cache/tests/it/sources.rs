//! Sources, listing and fetching against the tests' own S3 server, healthy and faulty: no wrong byte, ever, and
//! each error of the right kind.

#![expect(clippy::unwrap_used, reason = "a test that cannot continue panics")]

mod faults;
mod listing;
mod private;
mod rig;
mod webdav;
