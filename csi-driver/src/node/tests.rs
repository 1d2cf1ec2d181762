//! A whole driver on a real kernel, asked by a CSI client over its socket. Needs root and `/dev/fuse`.
//!
//! Driver, mounter and keeper are this very test program, run again with an environment variable that says so, so that they can be killed.

mod fixture;
mod recovery;
mod sanity;
mod tiers;
mod volumes;
