//! What the controller says to the processes of the nodes, and they to it: `proto/plan.proto` as Rust.
//!
//! These are plain values, and mean what the comments of the definition say. Maps and options may hold credentials, so
//! none of these is ever logged whole.

#![expect(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    reason = "generated; the documentation is in the definition"
)]

tonic::include_proto!("millpond.plan.v1");
