//! What every end-to-end test needs: a scratch folder that cleans up after itself, a mounted Millpond whose processes
//! can be found and killed, and the checks of bytes that all of them make.
//!
//! The tests run the real binary as a user would, on real kernel mounts. Everything that a test makes lies in its
//! [`Scratch`]; dropping that unmounts and ends whatever is left, also when the test failed.

mod bucket;
mod mounted;
mod process;
mod reading;
mod scratch;

pub use bucket::Bucket;
pub use mounted::{Mount, MountCommand, View, millpond, wait_until};
pub use process::{Process, Role, processes};
pub use reading::{drop_caches, expect_errno, files_below, read, read_range};
pub use scratch::Scratch;
