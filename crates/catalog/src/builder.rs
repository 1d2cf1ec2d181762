//! Writes a catalog from a listing.
//!
//! Objects are sorted by their paths (on disk, if they are many), then the sorted tree is walked twice: once to measure
//! every directory, once to write. The heap holds the sort's arena and buffers, and the state of the directories on the
//! current path: it depends neither on the number of files or directories nor on the size of a directory. The output does
//! not depend on the order of the listing: the same objects give the same bytes.

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

/// Default of [`BuildOptions::memory_bytes`]: runs of a hundred thousand files and more, a quarter of the 200 MiB that a
/// listing of a million files may take.
const MEMORY_DEFAULT_BYTES: usize = 48 << 20;
/// Smallest arena: the buffers used beside it are larger than that.
const MEMORY_MIN_BYTES: usize = 1 << 20;
/// Most sources, more than any Dataset has; their URLs are in the image, and a reader may load them all.
const SOURCES_MAX: usize = 1024;
/// Longest URL of a source; longer ones cannot be read by getxattr on every system.
const SOURCE_ID_MAX_BYTES: usize = 4096;
/// Permission bits, without set-id bits, which a catalog from another machine must not contain.
const MODE_MAX: u16 = 0o777;

/// Options of a [`Builder`].
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// Sources of the Dataset, 1 to 1,024; entries refer to them by position.
    pub sources: Vec<SourceInfo>,
    /// Owner of everything.
    pub owner: Owner,
    /// Start time of the listing: the time of the image, and of all directories.
    pub created: Time,
    /// Directory of the sort's spill files (unnamed); usually that of the image.
    pub spill_directory: PathBuf,
    /// Approximate heap to use, at least 1 MiB; 0: the default, 48 MiB.
    pub memory_bytes: usize,
}

impl BuildOptions {
    /// Checks the description of a catalog, before it is written or when it comes from another machine.
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
                "the modes {file_mode:o} and {dir_mode:o} have bits other than permissions"
            ));
        }
        Ok(())
    }
}

/// Builder of a catalog: takes the objects of a listing in any order and writes image and index.
#[derive(Debug)]
pub struct Builder {
    options: BuildOptions,
    sorter: Sorter,
    refusals: Refusals,
    /// Path and record of the last entry, retained to reuse their memory.
    path: Vec<u8>,
    value: Vec<u8>,
}

impl Builder {
    /// Starts a catalog.
    ///
    /// # Errors
    /// If the options contradict each other or the format.
    pub fn new(mut options: BuildOptions) -> Result<Self> {
        BuildOptions::check(&options.sources, options.owner)?;
        options.created = Time::new(options.created.secs, options.created.nanos);
        options.memory_bytes = match options.memory_bytes {
            0 => MEMORY_DEFAULT_BYTES,
            bytes => bytes.max(MEMORY_MIN_BYTES),
        };
        let mut sorter = Sorter::new(&options.spill_directory, options.memory_bytes / 2);
        for SourceInfo { path, .. } in options.sources.iter().filter(|source| !source.path.is_empty()) {
            // A source's directory exists even if it is empty.
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

    /// Adds one object. One that cannot be a file is counted in the [`Summary`], and is not an error.
    ///
    /// # Errors
    /// If a spill file could not be written, or the entry's source does not exist.
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
    /// If a file could not be written. Previous files of these names stay, except for an image whose index could not be
    /// renamed: the two do not match, which [`Catalog::open`](crate::Catalog::open) detects.
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
    /// Returns the superblock of an image of this tree.
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

/// Image that is being written.
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
