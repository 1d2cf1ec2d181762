//! Turns sorted objects into a walk through a tree.
//!
//! Directories are not listed, they follow from paths; and where two objects want one path, or one's path is
//! another's directory, all but one lose. In sort form (see [`name`](crate::name)) all that is in conflict is adjacent, so
//! the walk holds one object back and needs no more memory than that and the current path.

use crate::name::{PATH_MAX_BYTES, SEPARATOR};
use crate::sort::{Record, Records};
use crate::{Error, Refusal, Result};
use millpond_core::{ObjectId, Time};

/// What the tree holds of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileRecord<'a> {
    /// Position of its source.
    pub(crate) source: u16,
    pub(crate) modified: Time,
    pub(crate) size_bytes: u64,
    pub(crate) id: ObjectId,
    /// The validator's text.
    pub(crate) validator: &'a str,
}

/// Sees a tree: each directory's children in the order of their names, each directory followed by all that is below it.
///
/// The root is entered before the walk begins and left as its last step.
pub(crate) trait Visitor {
    fn enter(&mut self, name: &[u8]) -> Result<()>;
    fn file(&mut self, name: &[u8], file: &FileRecord<'_>) -> Result<()>;
    fn leave(&mut self) -> Result<()>;
    /// Learns of an object that loses a conflict.
    fn refuse(&mut self, reason: Refusal, path: &[u8], file: &FileRecord<'_>) -> Result<()>;
}

/// Marks a sorted record as a directory: the value of its record begins with this, and ends.
pub(crate) const DIRECTORY_VALUE: &[u8] = &[0];
/// Marks a sorted record as a file. After [`DIRECTORY_VALUE`], so that a directory comes before a file of the same path.
const FILE_MARK: u8 = 1;

impl<'a> FileRecord<'a> {
    /// Encodes the record so that of several with the same path the one that wins is the least: the first source's, then
    /// the newest.
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

/// Walks through the tree that sorted records make.
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
    /// The directory that the visitor is in, in sort form.
    directory: Vec<u8>,
    /// A file that is visited when it is clear that nothing is in conflict with it.
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
                // Never a directory: that would have come before the held file.
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

    /// Visits the held file.
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
    FileRecord::decode(value).ok_or(Error::corrupt("a spill file's record cannot be read", 0))
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

/// Whether `path` is `directory` or below it.
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
