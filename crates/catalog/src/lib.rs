//! The catalog: one immutable snapshot of a Dataset's metadata, as an EROFS image that the kernel mounts and the
//! FUSE server maps, and a table that leads from an object's id back to its place in the image.
//!
//! - [`ObjectId`] names one version of one object; a cache file is named by it.
//! - [`Builder`] takes a listing in any order and writes image and index as a stream: it sorts on disk, so that
//!   the heap it needs depends on neither the number of files nor their distribution over directories.
//! - [`Image`], [`Index`] and [`Catalog`] read them from a memory map. Everything they read is checked where it is
//!   read: a damaged or hostile file makes errors, never a panic.
//! - [`check`] tells whether image and index are, byte for byte, what [`Builder`] writes. Whoever mounts an image that
//!   another machine made calls it first.
//!
//! This crate knows neither network nor FUSE nor Kubernetes.

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
