//! The protocol between the controller and the node processes: `proto/plan.proto` as Rust.
//!
//! The definition documents the messages. Maps and options may hold credentials, so that no message is ever logged as a
//! unit.

#![expect(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    reason = "generated; the documentation is in the definition"
)]

tonic::include_proto!("millpond.plan.v1");
