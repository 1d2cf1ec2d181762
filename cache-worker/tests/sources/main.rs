//! Sources, listing and fetching against the tests' own S3 server, well and unwell: no wrong byte, ever, and each
//! error of the right kind.

mod faults;
mod listing;
mod rig;
mod webdav;
