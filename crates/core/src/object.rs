//! References to objects.

use std::fmt;

use crate::ObjectId;

/// Number of a catalog: one immutable snapshot of a Dataset's metadata. Later ones are larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Inode of a file in one generation's catalog image; has no meaning in another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Inode(pub u64);

/// One source object in one version, and a place in a catalog that references it.
///
/// The id alone fixes the bytes. The worker finds the key by generation and id, in the index of that catalog: a
/// file's inode does not lead to its directory, and so not to its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ObjectRef {
    /// Generation whose catalog contains the object.
    pub generation: Generation,
    /// Inode of the file in that catalog.
    pub inode: Inode,
    /// Id of the object's version.
    pub id: ObjectId,
    /// Length in bytes.
    pub size_bytes: u64,
}
