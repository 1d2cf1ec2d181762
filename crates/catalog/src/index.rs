//! Sorted table of an image, from object id to inode.
//!
//! The file is a header, 24 bytes for each file of the image, and a JSON text that describes the complete catalog:
//! sources, owner, time and summary. Records are sorted by id, then by inode: an object in several positions (a
//! bucket mounted twice) has a record for each.
//!
//! The header carries BLAKE3 digests of everything, the image included. Opening verifies header and JSON, which are small; the
//! rest is verified by [`check`](crate::check()). Digests detect damage, not forgery, which the rest of the check detects.

mod write;

use std::path::Path;

use serde::{Deserialize, Serialize};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub(crate) use self::write::{IndexWriter, temporary_beside};
use crate::io::Mapped;
use crate::tree_writer::IndexEntry;
use crate::{Error, Nid, Owner, Place, Result, SourceInfo, Summary};
use millpond_core::{ObjectId, Time};

const MAGIC: [u8; 8] = *b"millpidx";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = size_of::<Header>();
/// Length of a record, as the header holds it.
const RECORD: u32 = 24;
const RECORD_BYTES: usize = size_of::<DiskRecord>();
const _: () = assert!(RECORD_BYTES == RECORD as usize);

pub(crate) type Digest = [u8; blake3::OUT_LEN];

/// Header of the file.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    version: U32,
    record_bytes: U32,
    records: U64,
    info_bytes: U64,
    image_bytes: U64,
    records_digest: Digest,
    info_digest: Digest,
    image_digest: Digest,
    /// Digest of all fields above.
    header_digest: Digest,
}

/// Record of one position of an object.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct DiskRecord {
    id: [u8; 16],
    nid: U32,
    parent: U32,
}

/// Description of the complete catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Info {
    pub(crate) sources: Vec<SourceInfo>,
    pub(crate) owner: Owner,
    pub(crate) created: Time,
    pub(crate) summary: Summary,
}

impl Header {
    fn new(records: u64, info_bytes: u64, image_bytes: u64, digests: [Digest; 3]) -> Self {
        let [records_digest, info_digest, image_digest] = digests;
        let mut header = Self {
            magic: MAGIC,
            version: U32::new(VERSION),
            record_bytes: U32::new(RECORD),
            records: U64::new(records),
            info_bytes: U64::new(info_bytes),
            image_bytes: U64::new(image_bytes),
            records_digest,
            info_digest,
            image_digest,
            header_digest: Digest::default(),
        };
        let bytes = header.as_bytes();
        let covered = bytes.len() - size_of::<Digest>();
        header.header_digest = *blake3::hash(bytes.get(..covered).unwrap_or_default()).as_bytes();
        header
    }

    fn is_ours(&self) -> bool {
        let digests = [self.records_digest, self.info_digest, self.image_digest];
        let same = Self::new(
            self.records.get(),
            self.info_bytes.get(),
            self.image_bytes.get(),
            digests,
        );
        same.as_bytes() == self.as_bytes()
    }
}

/// A mapped index.
#[derive(Debug)]
pub struct Index {
    map: Mapped,
    records_bytes: usize,
    image_bytes: u64,
    records_digest: Digest,
    image_digest: Digest,
    info: Info,
}

impl Index {
    /// Maps an index. The file must never be changed or truncated afterwards.
    ///
    /// # Errors
    /// If it cannot be read, or its header is of another format.
    pub fn open(path: &Path) -> Result<Self> {
        let map = Mapped::open(path)?;
        let header = Header::read_from_bytes(map.bytes(0, HEADER_BYTES)?).ok();
        let header = header
            .filter(Header::is_ours)
            .ok_or(Error::corrupt("the index does not start with its header", 0))?;
        let lengths = || {
            let records = usize::try_from(header.records.get())
                .ok()?
                .checked_mul(RECORD_BYTES)?;
            let info = usize::try_from(header.info_bytes.get()).ok()?;
            let total = HEADER_BYTES.checked_add(records)?.checked_add(info)?;
            (total as u64 == map.len()).then_some((records, info))
        };
        let (records_bytes, info_bytes) = lengths().ok_or(Error::corrupt(
            "the index's length differs from that in its header",
            map.len(),
        ))?;
        let info_offset = (HEADER_BYTES + records_bytes) as u64;
        let text = map.bytes(info_offset, info_bytes)?;
        let info =
            (*blake3::hash(text).as_bytes() == header.info_digest).then(|| serde_json::from_slice(text).ok());
        let info = info
            .flatten()
            .ok_or(Error::corrupt("the index's description is invalid", info_offset))?;
        let Header {
            records_digest,
            image_digest,
            image_bytes,
            ..
        } = header;
        Ok(Self {
            map,
            records_bytes,
            image_bytes: image_bytes.get(),
            records_digest,
            image_digest,
            info,
        })
    }

    /// Returns all positions in the order of their objects' ids, from the first id that is not below `id`.
    pub fn starting_at(&self, id: ObjectId) -> impl Iterator<Item = (ObjectId, Place)> + '_ {
        let records = self.records();
        let start = records.partition_point(|record| record.id < *id.as_bytes());
        let rest = records.get(start..).unwrap_or_default();
        rest.iter()
            .map(|record| (ObjectId::from_bytes(record.id), record.place()))
    }

    /// Returns all positions of an object, in the order of their inodes.
    pub fn find(&self, id: ObjectId) -> impl Iterator<Item = Place> + '_ {
        self.starting_at(id)
            .take_while(move |(found, _)| *found == id)
            .map(|(_, place)| place)
    }

    /// Returns the number of positions, which is the number of files.
    pub fn len(&self) -> usize {
        self.records().len()
    }

    /// Returns whether the catalog has no file.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns all objects and their positions, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (ObjectId, Place)> + '_ {
        self.starting_at(ObjectId::from_bytes([0; 16]))
    }

    /// Returns the sources of the catalog.
    pub fn sources(&self) -> &[SourceInfo] {
        &self.info.sources
    }

    /// Returns the owner of everything in the image.
    pub const fn owner(&self) -> Owner {
        self.info.owner
    }

    /// Returns the start time of the listing.
    pub const fn created(&self) -> Time {
        self.info.created
    }

    /// Returns the summary of the catalog, with its refused objects.
    pub const fn summary(&self) -> &Summary {
        &self.info.summary
    }

    pub(crate) const fn info(&self) -> &Info {
        &self.info
    }

    /// Returns the length of the index's image.
    pub(crate) const fn image_bytes(&self) -> u64 {
        self.image_bytes
    }

    pub(crate) const fn image_digest(&self) -> &Digest {
        &self.image_digest
    }

    /// Returns the UUID of the index's image.
    pub(crate) fn uuid(&self) -> [u8; 16] {
        uuid(&self.records_digest)
    }

    /// Returns whether the records match their digest and ascend.
    pub(crate) fn is_sorted_and_whole(&self) -> bool {
        let records = self.records();
        *blake3::hash(records.as_bytes()).as_bytes() == self.records_digest
            && records.is_sorted_by_key(|record| (record.id, record.place()))
    }

    /// Returns whether there is such a record.
    pub(crate) fn contains(&self, entry: &IndexEntry) -> bool {
        let place = Place {
            inode: Nid(entry.nid.into()),
            parent: Nid(entry.parent.into()),
        };
        self.records()
            .binary_search_by(|record| (&record.id, record.place()).cmp(&(entry.id.as_bytes(), place)))
            .is_ok()
    }

    fn records(&self) -> &[DiskRecord] {
        let bytes = self
            .map
            .bytes(HEADER_BYTES as u64, self.records_bytes)
            .unwrap_or_default();
        <[DiskRecord]>::ref_from_bytes(bytes).unwrap_or_default()
    }
}

impl DiskRecord {
    fn place(&self) -> Place {
        Place {
            inode: Nid(self.nid.get().into()),
            parent: Nid(self.parent.get().into()),
        }
    }
}

/// Returns the UUID of the image that has these records.
fn uuid(records_digest: &Digest) -> [u8; 16] {
    std::array::from_fn(|byte| records_digest.get(byte).copied().unwrap_or_default())
}

/// Sets the digests of image and index to valid ones, as a forger would.
#[cfg(test)]
pub(crate) fn reseal(image: &mut [u8], index: &mut [u8]) -> Option<()> {
    const UUID: std::ops::Range<usize> = 1024 + 48..1024 + 64;
    let header = Header::read_from_bytes(index.get(..HEADER_BYTES)?).ok()?;
    let records_bytes = usize::try_from(header.records.get())
        .ok()?
        .checked_mul(RECORD_BYTES)?;
    let info_begin = HEADER_BYTES.checked_add(records_bytes)?;
    let records_digest = *blake3::hash(index.get(HEADER_BYTES..info_begin)?).as_bytes();
    let info = index.get(info_begin..)?;
    image.get_mut(UUID)?.copy_from_slice(&uuid(&records_digest));
    let digests = [
        records_digest,
        *blake3::hash(info).as_bytes(),
        *blake3::hash(image).as_bytes(),
    ];
    let header = Header::new(
        header.records.get(),
        info.len() as u64,
        image.len() as u64,
        digests,
    );
    index.get_mut(..HEADER_BYTES)?.copy_from_slice(header.as_bytes());
    Some(())
}
