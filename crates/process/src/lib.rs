//! What every process of Millpond does first: log, agree on one TLS implementation, and find out where it runs and what
//! it may; its allocator; and how it waits and says what went wrong.

#![deny(unsafe_code)]

mod allocator;
mod boot;
mod causes;
mod files;
mod memory;
mod pauses;
pub mod telemetry;
pub mod tls;

pub use allocator::Allocator;
pub use boot::{BOOT_ID_OVERRIDE, boot_id};
pub use causes::with_causes;
pub use files::raise_file_limit;
pub use memory::{memory_bytes, memory_limit_bytes};
pub use pauses::pauses;
