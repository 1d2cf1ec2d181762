//! An image together with its index.

use std::path::Path;

use crate::erofs::{SharedXattrs, VALIDATOR};
use crate::name::{key_of, separated};
use crate::{Error, Image, Index, Inode, Kind, Nid, Result};
use millpond_core::{ObjectId, Time, Validator};

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
    shared: SharedXattrs,
}

impl Catalog {
    /// Maps both files. They must never be changed or truncated afterwards.
    ///
    /// # Errors
    /// One of them cannot be read, is not ours, or they do not belong together.
    pub fn open(image: &Path, index: &Path) -> Result<Self> {
        let (image, index) = (Image::open(image)?, Index::open(index)?);
        let superblock = image.superblock();
        let belong_together = image.map().len() == index.image_bytes()
            && superblock.uuid == index.uuid()
            && superblock.created == index.created();
        if !belong_together {
            return Err(Error::corrupt("image and index do not belong together", 0));
        }
        let shared = SharedXattrs::new(index.sources());
        Ok(Self { image, index, shared })
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
    pub fn describe(&self, place: Place) -> Result<Object> {
        let path = self.image.path_of(place.inode, place.parent)?;
        let path = std::str::from_utf8(&path)
            .ok()
            .ok_or(Error::corrupt("a path is not UTF-8", 0))?;
        let path: Vec<u8> = separated(path).collect();
        self.describe_path(place.inode, &path)
    }

    /// Says how to fetch the object whose path (in sort form) is known.
    pub(crate) fn describe_path(&self, nid: Nid, path: &[u8]) -> Result<Object> {
        let Inode {
            kind,
            size_bytes,
            mtime: modified,
            ..
        } = self.image.inode(nid)?;
        if kind != Kind::File {
            return Err(Error::WrongKind {
                nid: nid.0,
                wanted: "file",
            });
        }
        let damaged = |what| Error::corrupt(what, nid.0);
        let source = self
            .image
            .shared_xattrs(nid)?
            .find_map(|reference| self.shared.source(reference));
        let source = source.ok_or(damaged("a file names no source"))?;
        let key = self
            .index
            .sources()
            .get(usize::from(source))
            .and_then(|source| key_of(source, path));
        let text = self
            .image
            .xattr(nid, VALIDATOR)?
            .and_then(|text| std::str::from_utf8(text).ok());
        Ok(Object {
            id: self.image.object_id(nid)?,
            source,
            key: key.ok_or(damaged("a file is not where its source is"))?,
            size_bytes,
            validator: text
                .and_then(Validator::from_text)
                .ok_or(damaged("a file has no validator"))?,
            modified,
        })
    }

    pub(crate) const fn shared(&self) -> &SharedXattrs {
        &self.shared
    }
}
