//! The bytes that answer a read.

use std::ops::{Deref, Range};
use std::sync::Arc;

use bytes::Bytes;
use memmap2::Mmap;

/// A part of a mapped cache file, kept mapped for as long as anybody holds it.
#[derive(Clone, Debug)]
pub struct Mapping {
    map: Arc<Mmap>,
    range: Range<usize>,
}

impl Mapping {
    /// Takes `range` of `map`, or `None` where the map does not reach that far.
    pub fn new(map: Arc<Mmap>, range: Range<usize>) -> Option<Self> {
        (range.start <= range.end && range.end <= map.len()).then_some(Self { map, range })
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.get(self.range.clone()).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// How many bytes of an answer came from where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServedBytes {
    /// From this node's cache.
    pub local_bytes: u64,
    /// From another worker.
    pub peer_bytes: u64,
    /// From the source.
    pub origin_bytes: u64,
}

/// The answer to one read: exactly the bytes asked for, shorter only at the end of the object.
#[derive(Clone, Debug)]
pub enum Data {
    /// Bytes in memory.
    Bytes(Bytes, ServedBytes),
    /// Bytes of a mapped cache file, which nobody has to copy before they go to the kernel.
    Mapped(Mapping, ServedBytes),
}

impl Data {
    /// Where the bytes came from.
    pub const fn served(&self) -> ServedBytes {
        match self {
            Self::Bytes(_, served) | Self::Mapped(_, served) => *served,
        }
    }
}

impl From<Data> for Bytes {
    /// Without a copy.
    fn from(data: Data) -> Self {
        match data {
            Data::Bytes(bytes, _) => bytes,
            Data::Mapped(mapping, _) => Self::from_owner(mapping),
        }
    }
}

impl Deref for Data {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes, _) => bytes,
            Self::Mapped(mapping, _) => mapping,
        }
    }
}
