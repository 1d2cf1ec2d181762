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

/// One source object in one version, and a place in a catalog that references it.
///
/// The id alone fixes the bytes. The worker finds the key by generation and id, in the index of that catalog: a
/// file's inode does not lead to its directory, and so not to its path.
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
