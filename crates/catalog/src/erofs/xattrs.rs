//! Extended attributes.
//!
//! An inode's attributes are a header, references to shared attributes, and entries of its own. A reference is the
//! offset of a shared attribute in units of 4 bytes from the start of their area. Attributes common to many files are shared
//! (4 bytes a file): the metacopy mark, which makes overlayfs read the content from a data layer, and the source's URL.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::SourceInfo;
use millpond_core::ObjectId;

/// Prefixes of attribute names, by their numbers on disk.
pub(crate) const PREFIXES: [(u8, &[u8]); 2] = [(USER, b"user."), (TRUSTED, b"trusted.")];
const USER: u8 = 1;
const TRUSTED: u8 = 4;

/// Marks that a file's content is in a data layer.
pub(crate) const METACOPY: &[u8] = b"trusted.overlay.metacopy";
/// Path of the content, below any of the data layers.
pub(crate) const REDIRECT: &[u8] = b"trusted.overlay.redirect";
/// URL of the source.
pub(crate) const SOURCE: &[u8] = b"user.millpond.source";
/// Text of the validator.
pub(crate) const VALIDATOR: &[u8] = b"user.millpond.etag";

/// Unit of lengths and references.
const UNIT: usize = 4;

/// Header of an inode's attributes.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct XattrHeader {
    name_filter: U32,
    pub(crate) shared_count: u8,
    reserved: [u8; 7],
}

/// Header of an attribute, before its name (without prefix) and value.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct XattrEntry {
    pub(crate) name_bytes: u8,
    pub(crate) prefix: u8,
    pub(crate) value_bytes: U16,
}

impl XattrEntry {
    /// Returns the entry's length with name, value and padding.
    pub(crate) fn total_bytes(&self) -> usize {
        let content = usize::from(self.name_bytes) + usize::from(self.value_bytes.get());
        (size_of::<Self>() + content).next_multiple_of(UNIT)
    }
}

/// Area of shared attributes, determined by the sources alone.
#[derive(Debug)]
pub(crate) struct SharedXattrs {
    /// Content of the area, not padded to a block.
    pub(crate) bytes: Vec<u8>,
    /// Reference to the metacopy mark.
    pub(crate) metacopy: u32,
    /// References to the sources' URLs, by the source's position: ascending.
    pub(crate) sources: Vec<u32>,
}

impl SharedXattrs {
    pub(crate) fn new(sources: &[SourceInfo]) -> Self {
        let mut bytes = Vec::new();
        let mut add = |name: &[u8], value: &[u8]| {
            let reference = u32::try_from(bytes.len() / UNIT).unwrap_or(u32::MAX);
            push_entry(&mut bytes, name, value);
            reference
        };
        let metacopy = add(METACOPY, b"");
        let sources = sources
            .iter()
            .map(|source| add(SOURCE, source.id.as_bytes()))
            .collect();
        Self {
            bytes,
            metacopy,
            sources,
        }
    }

    /// Returns the position of the source of `reference`.
    pub(crate) fn source(&self, reference: u32) -> Option<u16> {
        self.sources
            .binary_search(&reference)
            .ok()
            .and_then(|source| u16::try_from(source).ok())
    }
}

/// Attributes of one file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileXattrs<'a> {
    /// Reference to the metacopy mark. `None` for an empty file: it has no content.
    pub(crate) metacopy: Option<u32>,
    /// Reference to the source's URL.
    pub(crate) source: u32,
    pub(crate) id: ObjectId,
    /// Text of the validator.
    pub(crate) validator: &'a str,
}

impl FileXattrs<'_> {
    /// Appends the attributes in their form after an inode.
    pub(crate) fn write(&self, bytes: &mut Vec<u8>) {
        let Self {
            metacopy,
            source,
            id,
            validator,
        } = *self;
        let shared_count = if metacopy.is_some() { 2 } else { 1 };
        bytes.extend_from_slice(
            XattrHeader {
                shared_count,
                ..XattrHeader::default()
            }
            .as_bytes(),
        );
        for reference in metacopy.into_iter().chain([source]) {
            bytes.extend_from_slice(&reference.to_le_bytes());
        }
        push_entry(bytes, REDIRECT, format!("/{}", id.path()).as_bytes());
        push_entry(bytes, VALIDATOR, validator.as_bytes());
    }
}

/// Returns the length of the attributes of a file, which depends only on these two.
pub(crate) fn file_xattr_bytes(size_bytes: u64, validator_bytes: usize) -> usize {
    /// `/ab/` and 24 characters.
    const REDIRECT_VALUE_BYTES: usize = 28;
    let shared = if size_bytes == 0 { 1 } else { 2 };
    let entry = |name: &[u8], value_bytes: usize| {
        (size_of::<XattrEntry>() + without_prefix(name).1.len() + value_bytes).next_multiple_of(UNIT)
    };
    size_of::<XattrHeader>()
        + shared * UNIT
        + entry(REDIRECT, REDIRECT_VALUE_BYTES)
        + entry(VALIDATOR, validator_bytes)
}

/// Returns an inode's number of units for the length of its attributes.
pub(crate) fn xattr_units(bytes: usize) -> u16 {
    let units = 1 + bytes.saturating_sub(size_of::<XattrHeader>()) / UNIT;
    u16::try_from(units).unwrap_or(u16::MAX)
}

/// Returns the length of an inode's number of units.
pub(crate) fn xattr_bytes(units: u16) -> usize {
    if units == 0 {
        0
    } else {
        size_of::<XattrHeader>() + (usize::from(units) - 1) * UNIT
    }
}

fn push_entry(bytes: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let (prefix, suffix) = without_prefix(name);
    let entry = XattrEntry {
        name_bytes: u8::try_from(suffix.len()).unwrap_or(u8::MAX),
        prefix,
        value_bytes: U16::new(u16::try_from(value.len()).unwrap_or(u16::MAX)),
    };
    bytes.extend_from_slice(entry.as_bytes());
    bytes.extend_from_slice(suffix);
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(UNIT), 0);
}

/// Splits a full name into the number of its prefix and the rest.
pub(crate) fn without_prefix(name: &[u8]) -> (u8, &[u8]) {
    PREFIXES
        .iter()
        .find_map(|&(number, prefix)| name.strip_prefix(prefix).map(|rest| (number, rest)))
        .unwrap_or((0, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_known_before_the_attributes_are_written() {
        for (size_bytes, validator) in [(0, ""), (0, "abc"), (1, "a"), (1, "abcd"), (9, "abcdefghi")] {
            let metacopy = (size_bytes > 0).then_some(0);
            let xattrs = FileXattrs {
                metacopy,
                source: 5,
                id: ObjectId::from_bytes([7; 16]),
                validator,
            };
            let mut bytes = Vec::new();
            xattrs.write(&mut bytes);
            assert_eq!(bytes.len(), file_xattr_bytes(size_bytes, validator.len()));
            assert_eq!(bytes.len(), xattr_bytes(xattr_units(bytes.len())));
        }
    }
}
