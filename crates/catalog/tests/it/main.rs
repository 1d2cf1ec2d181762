//! What builders make, as readers, the kernel and `fsck.erofs` see it.

mod build;
mod kernel;
