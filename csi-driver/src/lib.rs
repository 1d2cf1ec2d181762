//! Stub.
#![deny(unsafe_code)]

pub mod fuse;
pub mod keeper;
