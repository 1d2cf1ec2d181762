//! What a pod or a person sees mounted.
//!
//! The **kernel view** ([`KernelView`]) is an overlay of a catalog image, directories of objects and the FUSE mount: the
//! kernel serves what is cached without any process. The **FUSE view** ([`BindView`]) is a tree of the FUSE mount itself.
//! The [`Registry`] holds all views of a Dataset on the node.

mod bind;
mod error;
mod kernel;
mod opens;
mod places;
mod probe;
mod registry;
mod release;
mod settle;
mod shown;
mod spec;
#[cfg(test)]
mod tests;
mod trial;

pub use bind::{BindSpec, BindView};
pub use error::ViewError;
pub use kernel::{InUse, KernelView};
pub use opens::Ledger;
pub use probe::{Finding, Verdict, allows_kernel_views, probe};
pub use registry::{Registry, RegistryOptions};
pub use settle::SettleRules;
pub use spec::{OverlayMode, ViewSpec};
pub use trial::Abilities;
