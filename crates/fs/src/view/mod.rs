//! The mounts that pods and users read.
//!
//! The **kernel view** ([`KernelView`]) is an overlay of a catalog image, directories of objects and the FUSE mount: the
//! kernel serves what is cached without any process. The **FUSE view** ([`BindView`]) is a tree of the FUSE mount itself.
//! The [`Registry`] manages all views of a Dataset on the node.

mod bind;
mod error;
mod kernel;
mod kernel_support;
mod mounted_generation;
mod opens;
mod probe;
mod registry;
mod remount_rounds;
mod remount_schedule;
mod spec;
#[cfg(test)]
mod tests;

pub use bind::{BindSpec, BindView};
pub use error::ViewError;
pub use kernel::{InUse, KernelView};
pub use kernel_support::KernelSupport;
pub use probe::{Finding, Verdict, allows_kernel_views, probe};
pub use registry::{Registry, RegistryOptions};
pub use remount_schedule::RemountRules;
pub use spec::{OverlayMode, ViewSpec};
