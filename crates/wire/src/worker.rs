//! What a driver and a worker say to each other over a socket: `proto/worker.proto` as Rust.
//!
//! The values that both sides work with are [`millpond_core::Worker`]'s; [`crate::convert`] leads from one to the other.

#![expect(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    reason = "generated; the documentation is in the definition"
)]

tonic::include_proto!("millpond.worker.v1");
