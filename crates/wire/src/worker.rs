//! The protocol between a driver and a worker: `proto/worker.proto` as Rust.
//!
//! Both sides work with the values of [`millpond_core::Worker`]; [`crate::convert`] converts.

#![expect(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    reason = "generated; the documentation is in the definition"
)]

tonic::include_proto!("millpond.worker.v1");
