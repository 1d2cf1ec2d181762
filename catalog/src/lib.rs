<<<<<<< HEAD
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
mod entry;
mod error;
mod id;
mod image;
mod index;
mod name;
mod validator;

pub use builder::{BuildOptions, Builder};
pub use catalog::{Catalog, Object, Place};
pub use entry::{Entry, Owner, Refused, RefusedKey, SourceInfo, Summary};
pub use error::{Error, Result};
pub use id::{ObjectId, ParseObjectIdError};
pub use image::{DirEntry, Image, Inode, Kind, Nid, ReadDir};
pub use index::Index;
pub use name::Refusal;
pub use validator::{Time, Validator};
=======
//! Stub.
/// Stub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId([u8; 16]);
impl std::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
/// A moment, since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Time {
    /// Whole seconds.
    pub secs: i64,
    /// What is beyond them.
    pub nanos: u32,
}
/// What tells one version of a source object from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Validator {
    /// A strong ETag, with its quotes.
    ETag(String),
    /// The source's number of the version.
    VersionId(String),
    /// The time of the last change; the size goes with it.
    Modified {
        /// When.
        time: Time,
    },
}
>>>>>>> source
