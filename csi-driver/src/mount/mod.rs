//! Mounts: made, bound, remounted, taken away and found again.
//!
//! Everything goes by the kernel's mount API of descriptors, so hostile paths are only bytes here. All calls are
//! blocking; those that look up a path of a FUSE mount wait for its server.

mod anchor;
mod bind;
mod context;
mod erofs;
mod error;
mod io;
mod table;
mod tmpfs;
mod unmount;

pub(crate) use anchor::Anchor;
pub(crate) use context::{Context, DetachedMount, PathValue};
pub(crate) use erofs::detached_image;
pub(crate) use tmpfs::{SOURCE as MEMORY_SOURCE, mount_memory, resize_memory};

pub use bind::bind;
pub use erofs::{ImageBacking, ImageMount};
pub use error::MountError;
pub use table::{Mount, MountTable};
pub use unmount::{detach, unmount};
