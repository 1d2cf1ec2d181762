//! Allocator of all processes: jemalloc, with the first pages of large zeroed buffers touched at allocation.
//!
//! jemalloc returns memory to the system and does not fragment over weeks, as the C library's allocator does under many threads.
//!
//! A thread that reads requests of the FUSE device does so into a large zeroed buffer, whose pages are mapped only when
//! they are written. If the process is killed just when a request arrives, and the thread has handled none before, the kernel
//! dequeues the request, cannot map the page for a dying process, and fails the request with EIO instead of leaving it to the
//! next server. (`fuse_dev_do_read`; seen in one of some 20 kills of servers that had just started.) The buffers
//! are allocated by fuser, so the allocator is the only place to touch them.

mod io;

pub use io::Allocator;
