//! What end-to-end tests, the figures and the demo share: a scratch directory that cleans up after itself, a mount made by
//! the real command whose processes can be found and killed, servers with a bucket, and the readers of what they report.
//!
//! The programs are run as a user would run them, on real kernel mounts. Everything that a run makes lies in its
//! [`Scratch`]; dropping that ends the processes, unmounts and removes whatever is left, also after a failure.
//!
//! What fails is a `Result` for programs (`try_` where both exist) and a panic for tests, which cannot continue anyway.
#![forbid(unsafe_code)]

mod bucket;
mod helper;
pub mod metrics;
mod millpond;
mod mounted;
mod origin_server;
mod process;
mod reading;
pub mod report;
mod s3;
mod scratch;
mod wait;

pub use bucket::Bucket;
pub use helper::helper;
pub use millpond::Millpond;
pub use mounted::{Mount, MountCommand, View};
pub use origin_server::OriginServer;
pub use process::{Process, Role, processes};
pub use reading::{drop_caches, expect_errno, files_below, read, read_range};
pub use s3::{S3Server, Traffic};
pub use scratch::Scratch;
pub use wait::{poll, try_wait_until, wait_until};
