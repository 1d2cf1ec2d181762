//! Catalogs as the kernel and `fsck.erofs` see them. Needs root, and erofs in the kernel (6.12, to mount a file).

mod mounted;
mod random_trees;
mod tree;
