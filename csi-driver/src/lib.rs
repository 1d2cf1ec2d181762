//! Stub.

pub mod fuse;
pub mod keeper;
