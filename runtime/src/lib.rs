//! What every process of Millpond does first: log, agree on one TLS implementation, and find out where it runs; and its
//! allocator.

#![deny(unsafe_code)]

mod allocator;
mod boot;
mod memory;
pub mod telemetry;
pub mod tls;

pub use allocator::Allocator;
pub use boot::{BOOT_ID_OVERRIDE, boot_id};
pub use memory::memory_limit_bytes;
