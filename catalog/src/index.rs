//! The sorted table from object id to inode that belongs to an image.

use std::path::Path;

use crate::{ObjectId, Owner, Place, Result, SourceInfo, Summary, Time};

/// A mapped index.
#[derive(Debug)]
pub struct Index {}

impl Index {
    /// Maps an index. The file must never be changed or truncated afterwards.
    ///
    /// # Errors
    /// It cannot be read, or its header is not ours.
    pub fn open(_path: &Path) -> Result<Self> {
        unimplemented!("the next commit")
    }

    /// All places in the order of their objects' ids, from the first id that is not below `id`.
    pub fn starting_at(&self, _id: ObjectId) -> impl Iterator<Item = (ObjectId, Place)> + '_ {
        std::iter::empty()
    }

    /// Finds all places of an object, in the order of their inodes.
    pub fn find(&self, _id: ObjectId) -> impl Iterator<Item = Place> + '_ {
        std::iter::empty()
    }

    /// The sources that the catalog was made of.
    pub fn sources(&self) -> &[SourceInfo] {
        unimplemented!("the next commit")
    }

    /// Whom everything in the image belongs to.
    pub fn owner(&self) -> Owner {
        unimplemented!("the next commit")
    }

    /// When the listing began.
    pub fn created(&self) -> Time {
        unimplemented!("the next commit")
    }

    /// What the catalog holds, and what was refused.
    pub fn summary(&self) -> &Summary {
        unimplemented!("the next commit")
    }
}
