//! What every process of Millpond does first: log, agree on one TLS implementation, and find out where it runs and what
//! it may; its allocator; the tasks it consists of ([`Tasks`]) and what it answers over HTTP ([`http`]); and how it waits
//! and says what went wrong.

#![deny(unsafe_code)]

mod allocator;
mod backoff;
mod boot;
mod error_chain;
mod files;
pub mod http;
mod memory;
mod tasks;
pub mod telemetry;
pub mod tls;

pub use allocator::Allocator;
pub use backoff::backoff;
pub use boot::{BOOT_ID_OVERRIDE, boot_id};
pub use error_chain::with_causes;
pub use files::raise_file_limit;
pub use memory::{memory_bytes, memory_limit_bytes};
pub use tasks::{TaskExit, Tasks};
