//! The allocator of all processes: jemalloc, and the beginnings of large buffers are there before they are used.
//!
//! jemalloc returns memory to the system and does not fragment over weeks, as the C library's allocator does under many threads.
//!
//! A thread that reads requests of the FUSE device does so into a large zeroed buffer, whose pages are there only when
//! something was written to them. If the process is killed just when a request comes, and the thread has had none before, the
//! kernel takes the request, cannot bring the page in for a process that is dying, and ends the request with EIO, where it must
//! be left to the next server. (`fuse_dev_do_read`; seen in one of some 20 kills of servers that had just started.) The buffers
//! are fuser's, which leaves this as the place to see to it.

mod io;

pub use io::Allocator;
