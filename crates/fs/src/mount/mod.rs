//! Mounts: creating, binding, remounting, unmounting and finding them.
//!
//! Everything uses the kernel's mount API of descriptors, so hostile paths are only bytes here. All calls are
//! blocking. Those that send requests to the file system of a path ([`Overlay`], [`clone_tree`], [`Size`]) are the mounter's
//! ([`crate::mounter`]): where it is a FUSE mount they wait for its server, which must not wait for itself.

mod anchor;
mod bind;
mod context;
mod erofs;
mod error;
mod fuse_connection;
mod io;
mod overlay;
mod size;
mod table;
mod tmpfs;
mod unmount;

pub(crate) use anchor::Anchor;
pub(crate) use bind::{clone_tree, show_tree};
pub use context::DetachedMount;
pub(crate) use context::{Context, PathValue};
pub(crate) use erofs::detached_image;
pub(crate) use fuse_connection::{abort_fuse_connection, fuse_connection, mounted_device};
pub(crate) use overlay::Overlay;
pub use size::Size;
pub use tmpfs::{SOURCE as MEMORY_SOURCE, mount_memory, resize_memory};

pub use erofs::{ImageBacking, ImageMount};
pub use error::MountError;
pub use table::{Mount, MountTable};
pub use unmount::{detach, unmount};
