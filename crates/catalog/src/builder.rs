//! Writes a catalog from a listing.
//!
//! Objects are sorted by their paths (on disk, if they are many), then the sorted tree is walked through twice: once to
//! measure every directory, once to write. The heap that this takes is the sort's arena and buffers, and what is kept for the
//! directories on the current path: it depends on neither the number of files nor that of directories, nor on how large a
//! directory is. The order of the listing leaves no trace: the same objects give the same bytes.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use zerocopy::IntoBytes;

use crate::erofs::{SUPERBLOCK_OFFSET, SharedXattrs, SuperBlock, SuperBlockContent};
use crate::index::{IndexWriter, Info, temporary_beside};
use crate::layout::{Measure, Refusals, Totals};
use crate::name::{self, OBJECT_MAX_BYTES, Shape, VALIDATOR_MAX_BYTES};
use crate::sort::{Record, Sorter};
use crate::tree::{self, DIRECTORY_VALUE, FileRecord};
use crate::tree_writer::{Common, IndexEntry, Target, TreeWriter};
use crate::{Entry, Error, Owner, Refusal, Result, SourceInfo, Summary};
use millpond_core::{ObjectId, Time};

/// The default of [`BuildOptions::memory_bytes`]: runs of a hundred thousand files and more, a quarter of the 200 MiB that a
/// listing of a million files may take.
const MEMORY_DEFAULT_BYTES: usize = 48 << 20;
/// What makes no sense to go below: the buffers that are used beside the arena are larger than that.
const MEMORY_MIN_BYTES: usize = 1 << 20;
/// More sources than any Dataset has; their URLs are in the image, and a reader may want to hold them all.
const SOURCES_MAX: usize = 1024;
/// Longest URL of a source; longer ones could not be read by getxattr everywhere.
const SOURCE_ID_MAX_BYTES: usize = 4096;
/// Permission bits; no set-id bits, which a catalog from elsewhere must not bring along.
const MODE_MAX: u16 = 0o777;

/// What a [`Builder`] needs to know before the first entry.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// The Dataset's sources; entries name them by position. 1 to 1,024.
    pub sources: Vec<SourceInfo>,
    /// Whom everything belongs to.
    pub owner: Owner,
    /// When the listing began: the time of the image, and of all directories.
    pub created: Time,
    /// Where the sort spills to (unnamed files); as a rule the directory of the image.
    pub spill_directory: PathBuf,
    /// About how much heap to use, at least 1 MiB; 0: the default, 48 MiB.
    pub memory_bytes: usize,
}

impl BuildOptions {
    /// Checks what a catalog says of itself, before it is written or when it comes from elsewhere.
    pub(crate) fn check(sources: &[SourceInfo], owner: Owner) -> Result<()> {
        let refuse = |reason: String| Err(Error::Options(reason));
        if sources.is_empty() || sources.len() > SOURCES_MAX {
            return refuse(format!("{} sources instead of 1 to {SOURCES_MAX}", sources.len()));
        }
        for SourceInfo { id, prefix, path } in sources {
            if id.len() > SOURCE_ID_MAX_BYTES {
                return refuse(format!("a source's URL has {} bytes", id.len()));
            }
            if !prefix.is_empty() && !prefix.ends_with('/') {
                return refuse(format!("the prefix {prefix:?} of {id} does not end in a slash"));
            }
            if !path.is_empty() && name::check_path(path).is_err() {
                return refuse(format!("{path:?} cannot be the directory of {id}"));
            }
        }
        let Owner {
            uid: _,
            gid: _,
            file_mode,
            dir_mode,
        } = owner;
        if file_mode > MODE_MAX || dir_mode > MODE_MAX {
            return refuse(format!(
                "the modes {file_mode:o} and {dir_mode:o} are not only permissions"
            ));
        }
        Ok(())
    }
}

/// Takes the objects of a listing in any order and writes image and index.
#[derive(Debug)]
pub struct Builder {
    options: BuildOptions,
    sorter: Sorter,
    refusals: Refusals,
    /// Path and record of the last entry, kept for their memory.
    path: Vec<u8>,
    value: Vec<u8>,
}

impl Builder {
    /// Begins a catalog.
    ///
    /// # Errors
    /// The options contradict each other or the format.
    pub fn new(mut options: BuildOptions) -> Result<Self> {
        BuildOptions::check(&options.sources, options.owner)?;
        options.created = Time::new(options.created.secs, options.created.nanos);
        options.memory_bytes = match options.memory_bytes {
            0 => MEMORY_DEFAULT_BYTES,
            bytes => bytes.max(MEMORY_MIN_BYTES),
        };
        let mut sorter = Sorter::new(&options.spill_directory, options.memory_bytes / 2);
        for SourceInfo { path, .. } in options.sources.iter().filter(|source| !source.path.is_empty()) {
            // A source's directory is there even if nothing is in it.
            let path: Vec<u8> = name::separated(path).collect();
            sorter.push(Record {
                key: &path,
                value: DIRECTORY_VALUE,
            })?;
        }
        Ok(Self {
            options,
            sorter,
            refusals: Refusals::default(),
            path: Vec::new(),
            value: Vec::new(),
        })
    }

    /// Adds one object. What cannot be a file is counted in the [`Summary`], and is not an error.
    ///
    /// # Errors
    /// A spill file could not be written, or the entry names a source that is not there.
    pub fn add(&mut self, entry: &Entry) -> Result<()> {
        let Entry {
            source,
            key,
            size_bytes,
            modified,
            validator,
        } = entry;
        let (position, size_bytes) = (*source, *size_bytes);
        let source = self.options.sources.get(usize::from(position));
        let source = source.ok_or_else(|| Error::Options(format!("there is no source number {position}")))?;
        let text = validator.text();
        let shape = name::sort_form(source, key, &mut self.path).and_then(|shape| match shape {
            Shape::Directory if size_bytes > 0 => Err(Refusal::DirectoryWithContent),
            _ if size_bytes > OBJECT_MAX_BYTES => Err(Refusal::ObjectTooLarge),
            _ if text.len() > VALIDATOR_MAX_BYTES => Err(Refusal::ValidatorTooLong),
            shape => Ok(shape),
        });
        let value = match shape {
            Ok(Shape::Directory) => DIRECTORY_VALUE,
            Ok(Shape::File) => {
                let modified = Time::new(modified.secs, modified.nanos);
                let id = ObjectId::derive(&source.id, key, validator, size_bytes);
                FileRecord {
                    source: position,
                    modified,
                    size_bytes,
                    id,
                    validator: &text,
                }
                .encode(&mut self.value);
                &self.value
            }
            Err(reason) => {
                self.refusals.add(reason, position, key);
                return Ok(());
            }
        };
        self.sorter.push(Record {
            key: &self.path,
            value,
        })
    }

    /// Writes both files, each beside its final name first, and renames the image, then the index.
    ///
    /// # Errors
    /// A file could not be written. What had the names before has them still, but for an image whose index could not be
    /// renamed: the two do not belong together, which [`Catalog::open`](crate::Catalog::open) tells.
    pub fn finish(self, image: &Path, index: &Path) -> Result<Summary> {
        let Self {
            options,
            sorter,
            refusals,
            ..
        } = self;
        let BuildOptions {
            sources,
            owner,
            created,
            spill_directory,
            memory_bytes,
        } = options;
        let sorted = sorter.finish()?;

        let mut measure = Measure::new(&sources, &spill_directory, refusals)?;
        tree::walk(sorted.records()?, &mut measure)?;
        let (totals, infos, refusals) = measure.finish();
        let shared = SharedXattrs::new(&sources);
        let layout = totals.layout(shared.bytes.len())?;

        let mut file = temporary_beside(image)?;
        file.as_file()
            .set_len(layout.image_bytes)
            .map_err(Error::io("write the image", image))?;
        let target = ImageFile {
            file: &file,
            path: image,
            index: Sorter::new(&spill_directory, memory_bytes / 4),
        };
        let mut writer = TreeWriter::new(
            Common {
                owner,
                created,
                shared: &shared,
                layout,
            },
            infos.read()?,
            target,
        )?;
        tree::walk(sorted.records()?, &mut writer)?;
        let records = writer.into_target().index.finish()?;
        drop(sorted);

        let index_writer = IndexWriter::create(index, &records)?;
        let superblock = SuperBlock::new(&totals.superblock(created, layout.meta_block, index_writer.uuid()));
        file.as_file()
            .write_all_at(superblock.as_bytes(), SUPERBLOCK_OFFSET)
            .and_then(|()| file.as_file().sync_data())
            .map_err(Error::io("write the image", image))?;
        let Totals {
            files,
            directories: dirs,
            bytes,
            ..
        } = totals;
        let summary = Summary {
            files,
            dirs,
            bytes,
            refused: refusals.finish(),
        };
        let info = Info {
            sources,
            owner,
            created,
            summary,
        };
        let index_file = index_writer.finish(index, &info, &mut file)?;

        for (file, path) in [(file, image), (index_file, index)] {
            file.persist(path)
                .map_err(|error| Error::io("rename a file to", path)(error.error))?;
        }
        Ok(info.summary)
    }
}

impl Totals {
    /// The superblock of an image of this tree.
    pub(crate) fn superblock(&self, created: Time, meta_block: u32, uuid: [u8; 16]) -> SuperBlockContent {
        let inodes = self.files + self.directories;
        SuperBlockContent {
            inodes,
            created,
            blocks: self.statfs_blocks(),
            meta_block,
            uuid,
        }
    }
}

/// An image that is being written.
struct ImageFile<'a> {
    file: &'a NamedTempFile,
    path: &'a Path,
    index: Sorter,
}

impl Target for ImageFile<'_> {
    fn put(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file
            .as_file()
            .write_all_at(bytes, offset)
            .map_err(Error::io("write the image", self.path))
    }

    fn index(&mut self, record: &IndexEntry) -> Result<()> {
        IndexWriter::sort(&mut self.index, record)
    }
}
