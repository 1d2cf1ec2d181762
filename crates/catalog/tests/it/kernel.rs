//! Catalogs as the kernel and `fsck.erofs` see them. Needs root, and erofs in the kernel (6.12, to mount a file).

#![expect(
    clippy::unwrap_used,
    reason = "a test panics where something is not as it has to be"
)]

mod mounted;
mod overlay;
mod random_trees;
mod tree;
