//! Bytes that a read returns.

use std::ops::{Deref, Range};
use std::sync::Arc;

use bytes::Bytes;
use memmap2::Mmap;

/// Range of a mapped cache file, which stays mapped while a clone exists.
#[derive(Clone, Debug)]
pub struct Mapping {
    map: Arc<Mmap>,
    range: Range<usize>,
}

impl Mapping {
    /// Returns `range` of `map`; `None`: the map is shorter.
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

/// Bytes of a read by their origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServedBytes {
    /// From this node's cache.
    pub local_bytes: u64,
    /// From another worker.
    pub peer_bytes: u64,
    /// From the source.
    pub origin_bytes: u64,
}

/// Result of one read: exactly the requested bytes, shorter only at the end of the object.
#[derive(Clone, Debug)]
pub enum Data {
    /// Bytes in memory.
    Bytes(Bytes, ServedBytes),
    /// Bytes of a mapped cache file, passed to the kernel without a copy.
    Mapped(Mapping, ServedBytes),
}

impl Data {
    /// Origin of the bytes.
    pub const fn served(&self) -> ServedBytes {
        match self {
            Self::Bytes(_, served) | Self::Mapped(_, served) => *served,
        }
    }
}

impl From<Data> for Bytes {
    /// Converts without a copy.
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
