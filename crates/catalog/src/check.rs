//! Strict check of a catalog from another machine, before the kernel parses its image as root.
//!
//! A list of rules would have to cover everything that an attacker could think of. Instead the tree of the image is read,
//! and written again by the same code that writes images - not into a file, but compared with the image's bytes. The first
//! byte that differs is an error. So an image that passes is one that the writer would have written: no structures overlap,
//! no directory contains itself, every offset and every padding byte is correct. The image's objects are checked too: each
//! id is derived again from source, key, validator and size.
//!
//! The reading is bounded: names must ascend and no more inodes are visited than the superblock says, which is bounded
//! by the length of the file. The heap holds only the state of the current path.

use std::path::Path;

use zerocopy::IntoBytes;

use crate::erofs::{BLOCK, SUPERBLOCK_OFFSET, SuperBlock};
use crate::layout::{Measure, Refusals};
use crate::name::{OBJECT_MAX_BYTES, PATH_MAX_BYTES, SEPARATOR, VALIDATOR_MAX_BYTES, check_name};
use crate::tree::{FileRecord, Visitor};
use crate::tree_writer::{Common, IndexEntry, Target, TreeWriter};
use crate::{BuildOptions, Catalog, DirEntry, Error, Kind, Nid, Object, Result, Summary};
use millpond_core::{ObjectId, Time};

/// Checks that image and index are, byte for byte, what [`Builder`](crate::Builder) writes for their tree; `scratch` is a directory for an unnamed file of 16 bytes a directory.
///
/// The files must be this process's own copies: another process with write access could change them after the check.
///
/// # Errors
/// [`Error::Corrupt`] if they are not. Other errors do not concern the catalog.
pub fn check(image: &Path, index: &Path, scratch: &Path) -> Result<Summary> {
    let catalog = Catalog::open(image, index)?;
    let info = catalog.index().info();
    let summary = info.summary.clone();
    BuildOptions::check(&info.sources, info.owner)
        .map_err(|_options| Error::corrupt("the index's description contradicts itself", 0))?;
    if info.created != Time::new(info.created.secs, info.created.nanos) {
        return Err(Error::corrupt("the time of the catalog is invalid", 0));
    }
    let bytes = catalog.image().map().all();
    if blake3::hash(bytes).as_bytes() != catalog.index().image_digest() {
        return Err(Error::corrupt(
            "the image is not the one that the index was written with",
            0,
        ));
    }
    if !catalog.index().is_sorted_and_whole() {
        return Err(Error::corrupt("the index's records do not match their digest", 0));
    }

    let mut measure = Measure::new(&info.sources, scratch, Refusals::default())?;
    read_tree(&catalog, &mut measure)?;
    let (totals, infos, _) = measure.finish();
    let described = (
        summary.files,
        summary.dirs,
        summary.bytes,
        catalog.index().len() as u64,
    );
    if described != (totals.files, totals.directories, totals.bytes, totals.files) {
        return Err(Error::corrupt(
            "the index has another number of files than the image",
            0,
        ));
    }
    let shared = catalog.shared();
    let layout = totals
        .layout(shared.bytes.len())
        .ok()
        .filter(|layout| layout.image_bytes == bytes.len() as u64);
    let layout = layout.ok_or(Error::corrupt(
        "the image has another length than its tree needs",
        0,
    ))?;

    let mut target = Comparison { catalog: &catalog };
    let superblock = totals.superblock(info.created, layout.meta_block, catalog.index().uuid());
    target.put(SUPERBLOCK_OFFSET, SuperBlock::new(&superblock).as_bytes())?;
    target.padding(0, SUPERBLOCK_OFFSET)?;
    target.padding(SUPERBLOCK_OFFSET + size_of::<SuperBlock>() as u64, BLOCK)?;
    let shared_end = BLOCK + shared.bytes.len() as u64;
    target.padding(shared_end, u64::from(layout.directories_block) * BLOCK)?;
    let (before_root, meta_end) = totals.meta_padding(&layout);
    target.padding(before_root.start, before_root.end)?;
    target.padding(meta_end, layout.image_bytes)?;
    let common = Common {
        owner: info.owner,
        created: info.created,
        shared,
        layout,
    };
    let mut writer = TreeWriter::new(common, infos.read()?, target)?;
    read_tree(&catalog, &mut writer)?;
    Ok(summary)
}

/// Target that compares the bytes with the image's.
struct Comparison<'a> {
    catalog: &'a Catalog,
}

impl Comparison<'_> {
    /// Checks that there are only zeros from `start` to `end`.
    fn padding(&self, start: u64, end: u64) -> Result<()> {
        let length = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
        let is_zero = self
            .catalog
            .image()
            .map()
            .bytes(start, length)?
            .iter()
            .all(|&byte| byte == 0);
        if is_zero {
            Ok(())
        } else {
            Err(Error::corrupt("padding is not zero", start))
        }
    }
}

impl Target for Comparison<'_> {
    fn put(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let is_same = self.catalog.image().map().bytes(offset, bytes.len())? == bytes;
        if is_same {
            Ok(())
        } else {
            Err(Error::corrupt(
                "the writer would have written other bytes",
                offset,
            ))
        }
    }

    fn index(&mut self, record: &IndexEntry) -> Result<()> {
        let is_there = self.catalog.index().contains(record);
        if is_there {
            Ok(())
        } else {
            Err(Error::corrupt(
                "a file is not in the index",
                u64::from(record.nid),
            ))
        }
    }
}

/// Directory that is being read.
struct Open {
    dir: Nid,
    /// Cookie of the next entry.
    next: u64,
    /// Name of the last entry that was read.
    last: Vec<u8>,
    /// Length of the directory's path.
    path_bytes: usize,
}

/// Walks the tree of an image.
fn read_tree(catalog: &Catalog, visitor: &mut impl Visitor) -> Result<()> {
    let image = catalog.image();
    let mut path = Vec::new();
    let mut inodes = 1;
    let mut open = vec![Open {
        dir: image.root(),
        next: 0,
        last: Vec::new(),
        path_bytes: 0,
    }];
    while let Some(Open {
        dir,
        next,
        last,
        path_bytes,
    }) = open.last_mut()
    {
        path.truncate(*path_bytes);
        // One reader for each run of files, not for each entry.
        let mut entries = image.read_dir(*dir, *next)?;
        let below = loop {
            let Some(entry) = entries.next().transpose()? else {
                break None;
            };
            let DirEntry {
                name,
                nid,
                kind,
                next: after,
            } = entry;
            *next = after;
            if name <= last.as_slice() && !last.is_empty() {
                return Err(Error::corrupt("names do not ascend", nid.0));
            }
            last.clear();
            last.extend_from_slice(name);
            if matches!(name, b"." | b"..") {
                continue;
            }
            inodes += 1;
            let is_valid = check_name(name).is_ok() && !name.contains(&b'/') && inodes <= image.inodes();
            path.truncate(*path_bytes);
            if *path_bytes > 0 {
                path.push(SEPARATOR);
            }
            path.extend_from_slice(name);
            if !is_valid || path.len() > PATH_MAX_BYTES {
                return Err(Error::corrupt("a name is invalid, or there are too many", nid.0));
            }
            match kind {
                Kind::File => read_file(catalog, nid, &path, name, visitor)?,
                Kind::Directory => break Some((nid, name)),
            }
        };
        match below {
            Some((dir, name)) => {
                visitor.enter(name)?;
                open.push(Open {
                    dir,
                    next: 0,
                    last: Vec::new(),
                    path_bytes: path.len(),
                });
            }
            None => {
                visitor.leave()?;
                open.pop();
            }
        }
    }
    Ok(())
}

fn read_file(
    catalog: &Catalog,
    nid: Nid,
    path: &[u8],
    name: &[u8],
    visitor: &mut impl Visitor,
) -> Result<()> {
    let Object {
        id,
        source,
        key,
        size_bytes,
        validator,
        modified,
    } = catalog.describe_path(nid, path)?;
    let text = validator.text();
    let source_id = catalog
        .index()
        .sources()
        .get(usize::from(source))
        .map_or("", |source| source.id.as_str());
    if ObjectId::derive(source_id, &key, &validator, size_bytes) != id {
        return Err(Error::corrupt("a file's id does not match its object", nid.0));
    }
    let is_in_bounds = size_bytes <= OBJECT_MAX_BYTES
        && text.len() <= VALIDATOR_MAX_BYTES
        && modified == Time::new(modified.secs, modified.nanos);
    if !is_in_bounds {
        return Err(Error::corrupt("a file's attributes are out of bounds", nid.0));
    }
    visitor.file(
        name,
        &FileRecord {
            source,
            modified,
            size_bytes,
            id,
            validator: &text,
        },
    )
}

#[cfg(test)]
mod tests;
