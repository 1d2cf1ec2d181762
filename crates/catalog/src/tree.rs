//! Tree walk over sorted objects.
//!
//! Directories are not listed but implied by paths; of objects with the same path, or a path that is another's directory,
//! all but one are refused. In sort form (see [`name`](crate::name)) conflicting objects are adjacent, so the walk delays
//! one object and needs only the memory of that and the current path.

use crate::name::{PATH_MAX_BYTES, SEPARATOR};
use crate::sort::{Record, Records};
use crate::{Error, Refusal, Result};
use millpond_core::{ObjectId, Time};

/// Record of an object in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileRecord<'a> {
    /// Position of the source.
    pub(crate) source: u16,
    pub(crate) modified: Time,
    pub(crate) size_bytes: u64,
    pub(crate) id: ObjectId,
    /// Text of the validator.
    pub(crate) validator: &'a str,
}

/// Visitor of a tree: children are visited in the order of their names, each directory followed by its descendants.
///
/// The root is entered before the walk starts and left as its last step.
pub(crate) trait Visitor {
    fn enter(&mut self, name: &[u8]) -> Result<()>;
    fn file(&mut self, name: &[u8], file: &FileRecord<'_>) -> Result<()>;
    fn leave(&mut self) -> Result<()>;
    /// Visits an object that is refused by a conflict.
    fn refuse(&mut self, reason: Refusal, path: &[u8], file: &FileRecord<'_>) -> Result<()>;
}

/// Value of a sorted directory's record.
pub(crate) const DIRECTORY_VALUE: &[u8] = &[0];
/// First byte of a sorted file's value. After [`DIRECTORY_VALUE`], so that a directory sorts before a file of the same path.
const FILE_MARK: u8 = 1;

impl<'a> FileRecord<'a> {
    /// Encodes the record so that of several with the same path the smallest is used: the first source's, then the newest.
    pub(crate) fn encode(&self, value: &mut Vec<u8>) {
        let Self {
            source,
            modified,
            size_bytes,
            id,
            validator,
        } = *self;
        value.clear();
        value.push(FILE_MARK);
        value.extend_from_slice(&source.to_be_bytes());
        value.extend_from_slice(&(!order_preserving(modified.secs)).to_be_bytes());
        value.extend_from_slice(&(!modified.nanos).to_be_bytes());
        value.extend_from_slice(&size_bytes.to_be_bytes());
        value.extend_from_slice(id.as_bytes());
        value.extend_from_slice(validator.as_bytes());
    }

    fn decode(value: &'a [u8]) -> Option<Self> {
        let rest = value.strip_prefix(&[FILE_MARK])?;
        let (source, rest) = rest.split_first_chunk()?;
        let (secs, rest) = rest.split_first_chunk()?;
        let (nanos, rest) = rest.split_first_chunk()?;
        let (size_bytes, rest) = rest.split_first_chunk()?;
        let (id, validator) = rest.split_first_chunk()?;
        Some(Self {
            source: u16::from_be_bytes(*source),
            modified: Time {
                secs: (!u64::from_be_bytes(*secs) ^ 1 << 63).cast_signed(),
                nanos: !u32::from_be_bytes(*nanos),
            },
            size_bytes: u64::from_be_bytes(*size_bytes),
            id: ObjectId::from_bytes(*id),
            validator: std::str::from_utf8(validator).ok()?,
        })
    }
}

/// Walks the tree of sorted records.
pub(crate) fn walk(mut records: Records<'_>, visitor: &mut impl Visitor) -> Result<()> {
    let mut walk = Walk {
        directory: Vec::with_capacity(PATH_MAX_BYTES),
        held: None,
    };
    while let Some(record) = records.next()? {
        walk.take(record, visitor)?;
    }
    walk.release(visitor)?;
    walk.go_to(b"", visitor)?;
    visitor.leave()
}

struct Walk {
    /// Current directory of the visitor, in sort form.
    directory: Vec<u8>,
    /// Delayed file, visited once the next record shows that it has no conflict.
    held: Option<Held>,
}

struct Held {
    path: Vec<u8>,
    value: Vec<u8>,
}

impl Held {
    fn record(&self) -> Result<FileRecord<'_>> {
        decode(&self.value)
    }
}

impl Walk {
    fn take(&mut self, record: Record<'_>, visitor: &mut impl Visitor) -> Result<()> {
        let Record { key: path, value } = record;
        if let Some(held) = &self.held {
            match path.strip_prefix(held.path.as_slice()) {
                // Never a directory: it would have sorted before the delayed file.
                Some([]) => return visitor.refuse(Refusal::Duplicate, path, &decode(value)?),
                Some([SEPARATOR, ..]) => {
                    visitor.refuse(Refusal::IsDirectory, &held.path, &held.record()?)?;
                    self.held = None;
                }
                _ => self.release(visitor)?,
            }
        }
        if value == DIRECTORY_VALUE {
            return self.go_to(path, visitor);
        }
        if path == self.directory {
            return visitor.refuse(Refusal::IsDirectory, path, &decode(value)?);
        }
        self.held = Some(Held {
            path: path.to_vec(),
            value: value.to_vec(),
        });
        Ok(())
    }

    /// Visits the delayed file.
    fn release(&mut self, visitor: &mut impl Visitor) -> Result<()> {
        let Some(held) = self.held.take() else {
            return Ok(());
        };
        let (directory, name) = split_last(&held.path);
        self.go_to(directory, visitor)?;
        visitor.file(name, &held.record()?)
    }

    /// Leaves and enters directories until the visitor is in `target`.
    fn go_to(&mut self, target: &[u8], visitor: &mut impl Visitor) -> Result<()> {
        while !is_within(target, &self.directory) {
            visitor.leave()?;
            let above = split_last(&self.directory).0.len();
            self.directory.truncate(above);
        }
        let below = target.get(self.directory.len()..).unwrap_or_default();
        for name in below
            .split(|&byte| byte == SEPARATOR)
            .filter(|name| !name.is_empty())
        {
            visitor.enter(name)?;
            if !self.directory.is_empty() {
                self.directory.push(SEPARATOR);
            }
            self.directory.extend_from_slice(name);
        }
        Ok(())
    }
}

fn decode(value: &[u8]) -> Result<FileRecord<'_>> {
    FileRecord::decode(value).ok_or(Error::corrupt("a spill file's record is invalid", 0))
}

/// Splits a path into its directory and its name.
fn split_last(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == SEPARATOR) {
        Some(at) => (
            path.get(..at).unwrap_or_default(),
            path.get(at + 1..).unwrap_or_default(),
        ),
        None => (b"", path),
    }
}

/// Returns whether `path` is `directory` or below it.
fn is_within(path: &[u8], directory: &[u8]) -> bool {
    directory.is_empty()
        || path
            .strip_prefix(directory)
            .is_some_and(|rest| matches!(rest, [] | [SEPARATOR, ..]))
}

/// Maps times to numbers of the same order.
const fn order_preserving(secs: i64) -> u64 {
    secs.cast_unsigned() ^ 1 << 63
}

#[cfg(test)]
mod tests;
