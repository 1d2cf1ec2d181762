//! Extended attributes of one inode.

use zerocopy::FromBytes;

use crate::erofs::{BLOCK, PREFIXES, SHARED_BLOCK, XattrEntry, XattrHeader, without_prefix, xattr_bytes};
use crate::io::Mapped;
use crate::{Error, Result};

/// Attributes of one inode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Xattrs<'a> {
    map: &'a Mapped,
    /// Offset in the image.
    offset: u64,
    /// References to shared attributes, 4 bytes each.
    references: &'a [u8],
    /// Attributes of the inode itself.
    entries: &'a [u8],
}

impl<'a> Xattrs<'a> {
    /// Reads the attributes at `offset`; 0 units: there are none.
    pub(super) fn new(map: &'a Mapped, offset: u64, units: u16) -> Result<Self> {
        let bytes = map.bytes(offset, xattr_bytes(units))?;
        let Ok((header, rest)) = XattrHeader::read_from_prefix(bytes) else {
            return Ok(Self {
                map,
                offset,
                references: &[],
                entries: &[],
            });
        };
        let (references, entries) = rest
            .split_at_checked(usize::from(header.shared_count) * size_of::<u32>())
            .ok_or(Error::corrupt(
                "an inode has more shared attributes than space for them",
                offset,
            ))?;
        Ok(Self {
            map,
            offset,
            references,
            entries,
        })
    }

    /// Returns the references to shared attributes.
    pub(super) fn references(self) -> impl Iterator<Item = u32> + 'a {
        self.references
            .as_chunks()
            .0
            .iter()
            .copied()
            .map(u32::from_le_bytes)
    }

    pub(super) fn get(self, name: &[u8]) -> Result<Option<&'a [u8]>> {
        let wanted = without_prefix(name);
        for attribute in self.iter() {
            let Attribute {
                prefix,
                suffix,
                value,
            } = attribute?;
            if (prefix, suffix) == wanted {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    pub(super) fn all(self) -> Result<Vec<(Vec<u8>, &'a [u8])>> {
        let named = |attribute: Attribute<'a>| {
            let known = PREFIXES.iter().find(|(number, _)| *number == attribute.prefix);
            let (_, prefix) =
                known.ok_or(Error::corrupt("an attribute's name has no prefix", self.offset))?;
            Ok(([prefix, attribute.suffix].concat(), attribute.value))
        };
        self.iter().map(|attribute| attribute.and_then(named)).collect()
    }

    /// Returns the inode's own attributes, then the shared ones. After an error there are no more.
    fn iter(self) -> impl Iterator<Item = Result<Attribute<'a>>> {
        let mut entries = self.entries;
        let own = std::iter::from_fn(move || {
            if entries.is_empty() {
                return None;
            }
            let Some((attribute, rest)) = split_attribute(entries) else {
                entries = &[];
                return Some(Err(Error::corrupt("an attribute is damaged", self.offset)));
            };
            entries = rest;
            Some(Ok(attribute))
        });
        own.chain(self.references().map(move |reference| self.shared(reference)))
    }

    fn shared(self, reference: u32) -> Result<Attribute<'a>> {
        let offset = u64::from(SHARED_BLOCK) * BLOCK + u64::from(reference) * size_of::<u32>() as u64;
        let start = self.map.bytes(offset, size_of::<XattrEntry>())?;
        let length = XattrEntry::read_from_bytes(start).map_or(0, |entry| entry.total_bytes());
        let attribute = split_attribute(self.map.bytes(offset, length)?);
        Ok(attribute
            .ok_or(Error::corrupt("a shared attribute is damaged", offset))?
            .0)
    }
}

/// An attribute, its name in two parts.
#[derive(Clone, Copy, Debug)]
struct Attribute<'a> {
    prefix: u8,
    suffix: &'a [u8],
    value: &'a [u8],
}

/// Splits the first attribute off `bytes`; `None`: it is incomplete.
fn split_attribute(bytes: &[u8]) -> Option<(Attribute<'_>, &[u8])> {
    let (entry, content) = XattrEntry::read_from_prefix(bytes).ok()?;
    let (suffix, content) = content.split_at_checked(usize::from(entry.name_bytes))?;
    let (value, _) = content.split_at_checked(usize::from(entry.value_bytes.get()))?;
    let rest = bytes.get(entry.total_bytes()..)?;
    Some((
        Attribute {
            prefix: entry.prefix,
            suffix,
            value,
        },
        rest,
    ))
}
