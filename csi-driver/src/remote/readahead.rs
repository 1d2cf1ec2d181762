//! Readahead for readers in small steps: fetched with the current request.
//!
//! Uncached data is read through FUSE without the page cache, so each `read` of a program is a request to the worker, and
//! many programs read 4 KiB at a time. For a sequential reader the first of these requests fetches the rest of its piece of
//! [`PIECE_BYTES`]; for a random reader only the requested range. At most [`PIECES`] are buffered, one per stream.

use std::ops::Range;

use bytes::Bytes;
use millpond_core::{Data, ServedBytes, StreamId};
use moka::sync::Cache;

/// Largest response of a worker.
const PIECE_BYTES: u64 = 1 << 20;

/// Most buffered pieces: 32 MiB of memory.
const PIECES: u64 = 32;

#[derive(Clone, Debug)]
struct Piece {
    start: u64,
    bytes: Bytes,
    /// End of the stream's last read.
    read_to: u64,
}

/// Buffers of all streams.
#[derive(Debug)]
pub(super) struct Ahead {
    pieces: Cache<StreamId, Piece>,
}

impl Default for Ahead {
    fn default() -> Self {
        Self {
            pieces: Cache::new(PIECES),
        }
    }
}

impl Ahead {
    /// Returns a buffered range. Its origin was reported when it was fetched.
    pub(super) fn find(&self, stream: StreamId, range: &Range<u64>) -> Option<Data> {
        let piece = self.pieces.get(&stream)?;
        let bytes = slice(&piece, range)?;
        let piece = Piece {
            read_to: range.end,
            ..piece
        };
        self.pieces.insert(stream, piece);
        Some(Data::Bytes(bytes, ServedBytes::default()))
    }

    /// Returns the range to fetch for a read of `range`.
    pub(super) fn widen(&self, stream: StreamId, range: &Range<u64>, size_bytes: u64) -> Range<u64> {
        let before = self.pieces.get(&stream).map_or(0, |piece| piece.read_to);
        if range.start != before {
            return range.clone();
        }
        let piece_end = (range.start / PIECE_BYTES + 1) * PIECE_BYTES;
        range.start..range.end.max(piece_end).min(size_bytes)
    }

    /// Buffers data fetched from `start` on, and returns the requested range of it.
    pub(super) fn store(&self, stream: StreamId, start: u64, data: Data, range: &Range<u64>) -> Option<Data> {
        let served = data.served();
        let piece = Piece {
            start,
            bytes: data.into(),
            read_to: range.end,
        };
        let bytes = slice(&piece, range)?;
        self.pieces.insert(stream, piece);
        Some(Data::Bytes(bytes, served))
    }

    /// Drops the buffer of a closed stream.
    pub(super) fn forget(&self, stream: StreamId) {
        self.pieces.invalidate(&stream);
    }
}

fn slice(piece: &Piece, range: &Range<u64>) -> Option<Bytes> {
    let place = |at: u64| usize::try_from(at.checked_sub(piece.start)?).ok();
    let (from, to) = (place(range.start)?, place(range.end)?);
    (from <= to && to <= piece.bytes.len()).then(|| piece.bytes.slice(from..to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(range: Range<u64>) -> Data {
        let bytes: Vec<u8> = range.map(|at| u8::try_from(at % 251).unwrap()).collect();
        Data::Bytes(bytes.into(), ServedBytes::default())
    }

    #[test]
    fn a_sequential_reader_gets_a_piece_and_a_random_one_its_range() {
        let (ahead, stream) = (Ahead::default(), StreamId(1));
        let size = 3 * PIECE_BYTES;
        assert_eq!(ahead.widen(stream, &(0..10), size), 0..PIECE_BYTES);
        let first = ahead.store(stream, 0, data(0..PIECE_BYTES), &(0..10)).unwrap();
        assert_eq!(&*first, &*data(0..10));
        assert_eq!(&*ahead.find(stream, &(10..4_106)).unwrap(), &*data(10..4_106));
        // From within a piece: to its end.
        let middle = PIECE_BYTES - 5..PIECE_BYTES + 5;
        assert!(ahead.find(stream, &middle).is_none());
        assert_eq!(ahead.widen(stream, &(4_106..4_200), size), 4_106..PIECE_BYTES);
        assert_eq!(ahead.widen(stream, &middle, size), middle);
        ahead.forget(stream);
        assert!(ahead.find(stream, &(0..10)).is_none());
    }

    #[test]
    fn a_piece_ends_with_its_object_and_contains_the_requested_range() {
        let (ahead, stream) = (Ahead::default(), StreamId(1));
        assert_eq!(ahead.widen(stream, &(0..10), 12), 0..12);
        let long = 0..2 * PIECE_BYTES;
        assert_eq!(ahead.widen(stream, &long, 3 * PIECE_BYTES), long);
    }
}
