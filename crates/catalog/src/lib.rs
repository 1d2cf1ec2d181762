//! The catalog: one immutable snapshot of a Dataset's metadata, as an EROFS image that the kernel mounts and the
//! FUSE server maps, and a table from an object's id to its position in the image.
//!
//! - [`ObjectId`] names one version of one object; a cache file is named by it.
//! - [`Builder`] takes a listing in any order and writes image and index as a stream: it sorts on disk, so that its heap
//!   depends neither on the number of files nor on their distribution over directories.
//! - [`Image`], [`Index`] and [`Catalog`] read them from a memory map. Everything is checked where it is read: a
//!   damaged or hostile file causes errors, never a panic.
//! - [`check`] checks that image and index are, byte for byte, what [`Builder`] writes. The driver calls it before it
//!   mounts an image from another machine.
//!
//! This crate depends neither on the network nor on FUSE or Kubernetes.

#![deny(unsafe_code)]

mod builder;
mod catalog;
mod check;
mod entry;
mod erofs;
mod error;
mod image;
mod index;
mod io;
mod layout;
mod name;
mod sort;
mod tree;
mod tree_writer;

pub use builder::{BuildOptions, Builder};
pub use catalog::{Catalog, Object, Place};
pub use check::check;
pub use entry::{Entry, Owner, Refused, RefusedKey, SourceInfo, Summary};
pub use error::{Error, Result};
pub use image::{DirEntry, Image, Inode, Kind, Nid, ReadDir};
pub use index::Index;
pub use name::Refusal;
