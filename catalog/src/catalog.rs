//! An image together with its index.

use std::path::Path;

use crate::{Image, Index, Nid, ObjectId, Result, Time, Validator};

/// One place in an image where an object is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub inode: Nid,
    /// The directory that holds it.
    pub parent: Nid,
}

/// All that is needed to fetch an object from its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its id.
    pub id: ObjectId,
    /// Position of its source in [`Index::sources`].
    pub source: u16,
    /// Its whole key at the source.
    pub key: String,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Which version it is.
    pub validator: Validator,
    /// When it was last changed.
    pub modified: Time,
}

/// An image and the index that belongs to it.
#[derive(Debug)]
pub struct Catalog {
    image: Image,
    index: Index,
}

impl Catalog {
    /// Maps both files. They must never be changed or truncated afterwards.
    ///
    /// # Errors
    /// One of them cannot be read, is not ours, or they do not belong together.
    pub fn open(image: &Path, index: &Path) -> Result<Self> {
        Ok(Self {
            image: Image::open(image)?,
            index: Index::open(index)?,
        })
    }

    /// The image.
    pub const fn image(&self) -> &Image {
        &self.image
    }

    /// The index.
    pub const fn index(&self) -> &Index {
        &self.index
    }

    /// Finds the first place of an object; `None`: this catalog does not name it.
    pub fn find(&self, id: ObjectId) -> Option<Place> {
        self.index.find(id).next()
    }

    /// Says how to fetch the object at a place.
    ///
    /// # Errors
    /// There is no file at that place, or the catalog is damaged.
    pub fn describe(&self, _place: Place) -> Result<Object> {
        unimplemented!("the next commit")
    }
}
