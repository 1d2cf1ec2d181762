//! Writes a catalog from a listing.

use std::path::{Path, PathBuf};

use crate::{Entry, Owner, Result, SourceInfo, Summary, Time};

/// What a [`Builder`] needs to know before the first entry.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// The Dataset's sources; entries name them by position. 1 to 1,024.
    pub sources: Vec<SourceInfo>,
    /// Whom everything belongs to.
    pub owner: Owner,
    /// When the listing began: the time of the image, and of directories without files.
    pub created: Time,
    /// Where the sort spills to (unnamed files); as a rule the directory of the image.
    pub spill_directory: PathBuf,
    /// About how much heap to use, at least 1 MiB; 0: the default, 48 MiB.
    pub memory_bytes: usize,
}

/// Takes the objects of a listing in any order and writes image and index.
#[derive(Debug)]
pub struct Builder {}

impl Builder {
    /// Begins a catalog.
    ///
    /// # Errors
    /// The options contradict each other or the format.
    pub fn new(_options: BuildOptions) -> Result<Self> {
        Ok(Self {})
    }

    /// Adds one object. What cannot be a file is counted in the [`Summary`], and is not an error.
    ///
    /// # Errors
    /// A spill file could not be written, or the entry names a source that is not there.
    pub fn add(&mut self, _entry: &Entry) -> Result<()> {
        unimplemented!("the next commit")
    }

    /// Writes both files, each beside its final name first, and renames the image, then the index.
    ///
    /// # Errors
    /// A file could not be written; neither name exists then, or is what it was before.
    pub fn finish(self, _image: &Path, _index: &Path) -> Result<Summary> {
        unimplemented!("the next commit")
    }
}
