//! An image together with its index.

use std::path::Path;

use crate::erofs::{SharedXattrs, VALIDATOR};
use crate::name::{key_of, separated};
use crate::{Error, Image, Index, Inode, Kind, Nid, Result};
use millpond_core::{ObjectId, Time, Validator};

/// Position of an object in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Inode of the file.
    pub inode: Nid,
    /// Inode of its directory.
    pub parent: Nid,
}

/// Data needed to fetch an object from its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Id of the object.
    pub id: ObjectId,
    /// Position of its source in [`Index::sources`].
    pub source: u16,
    /// Complete key at the source.
    pub key: String,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Validator of its version.
    pub validator: Validator,
    /// Time of its last change.
    pub modified: Time,
}

/// An image and its index.
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
    /// If one of them cannot be read, has another format, or they do not match.
    pub fn open(image: &Path, index: &Path) -> Result<Self> {
        let (image, index) = (Image::open(image)?, Index::open(index)?);
        let superblock = image.superblock();
        let belong_together = image.map().len() == index.image_bytes()
            && superblock.uuid == index.uuid()
            && superblock.created == index.created();
        if !belong_together {
            return Err(Error::corrupt("image and index do not match", 0));
        }
        let shared = SharedXattrs::new(index.sources());
        Ok(Self { image, index, shared })
    }

    /// Returns the image.
    pub const fn image(&self) -> &Image {
        &self.image
    }

    /// Returns the index.
    pub const fn index(&self) -> &Index {
        &self.index
    }

    /// Returns the first position of an object; `None`: it is not in this catalog.
    pub fn find(&self, id: ObjectId) -> Option<Place> {
        self.index.find(id).next()
    }

    /// Returns how to fetch the object at a position.
    ///
    /// # Errors
    /// If there is no file at that position, or the catalog is damaged.
    pub fn describe(&self, place: Place) -> Result<Object> {
        let path = self.image.path_of(place.inode, place.parent)?;
        let path = std::str::from_utf8(&path)
            .ok()
            .ok_or(Error::corrupt("a path is not UTF-8", 0))?;
        let path: Vec<u8> = separated(path).collect();
        self.describe_path(place.inode, &path)
    }

    /// Returns how to fetch the object with this path (in sort form).
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
        let source = source.ok_or(damaged("a file has no source"))?;
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
            key: key.ok_or(damaged("a file is outside of its source's directory"))?,
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
