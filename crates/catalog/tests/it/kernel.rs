//! Tests of catalogs with the kernel and `fsck.erofs`. Needs root, and erofs in the kernel (6.12, to mount a file).

#![expect(clippy::unwrap_used, reason = "a test panics on failure")]

mod mounted;
mod overlay;
mod random_trees;
mod tree;
