//! Which object is meant.

use std::fmt;

use crate::ObjectId;

/// The number of a catalog: one immutable snapshot of a Dataset's metadata. Later ones are larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The position of a file in one generation's catalog image; means nothing in another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Inode(pub u64);

/// One source object in one version, and one place in a catalog where it is found.
///
/// The id alone says which bytes are meant; generation and inode lead the worker to its key without a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ObjectRef {
    /// The generation whose catalog names the object.
    pub generation: Generation,
    /// The file's inode in that catalog.
    pub inode: Inode,
    /// The version of the object.
    pub id: ObjectId,
    /// Length in bytes.
    pub size_bytes: u64,
}
