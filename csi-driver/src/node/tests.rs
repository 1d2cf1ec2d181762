//! Tests of a complete driver on a real kernel, called by a CSI client over its socket. Needs root and `/dev/fuse`.
//!
//! Driver, mounter and keeper are this test program, run again with an environment variable that selects the role, so that
//! they can be killed.

mod fixture;
mod recovery;
mod sanity;
mod tiers;
mod volumes;
