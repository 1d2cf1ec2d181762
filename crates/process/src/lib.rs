//! What all processes of Millpond share: logging, the TLS implementation, limits of the machine and the process, the
//! allocator, the tasks of a process ([`Tasks`]), its HTTP endpoints ([`http`]), retry backoff and error texts.

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
