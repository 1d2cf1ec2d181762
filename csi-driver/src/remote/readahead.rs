//! What a reader in small steps will ask for next, fetched with what it asks for now.
//!
//! What is not cached is read through FUSE without the page cache, so each `read` of a program is a question to the worker, and
//! many programs read 4 KiB at a time. A reader that goes forward gets the rest of its piece of [`PIECE_BYTES`] with the first
//! of these questions; one that jumps gets what it asks for and no more. At most [`PIECES`] are kept, one for a stream.

use std::ops::Range;

use bytes::Bytes;
use millpond_core::{Data, ServedBytes, StreamId};
use moka::sync::Cache;

/// The largest answer of a worker.
const PIECE_BYTES: u64 = 1 << 20;

/// The memory of it: 32 MiB.
const PIECES: u64 = 32;

#[derive(Clone, Debug)]
struct Piece {
    start: u64,
    bytes: Bytes,
    /// Where the last read of the stream ended.
    read_to: u64,
}

/// See the module's documentation.
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
    /// A part of an object that was fetched before. Where it came from was told then.
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

    /// What to fetch for a read of `range`.
    pub(super) fn widen(&self, stream: StreamId, range: &Range<u64>, size_bytes: u64) -> Range<u64> {
        let before = self.pieces.get(&stream).map_or(0, |piece| piece.read_to);
        if range.start != before {
            return range.clone();
        }
        let piece_end = (range.start / PIECE_BYTES + 1) * PIECE_BYTES;
        range.start..range.end.max(piece_end).min(size_bytes)
    }

    /// Keeps what was fetched from `start` on, and gives the part of it that was asked for.
    pub(super) fn keep(&self, stream: StreamId, start: u64, data: Data, range: &Range<u64>) -> Option<Data> {
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

    /// The stream was closed.
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
    fn who_goes_forward_gets_a_piece_and_who_jumps_what_was_asked_for() {
        let (ahead, stream) = (Ahead::default(), StreamId(1));
        let size = 3 * PIECE_BYTES;
        assert_eq!(ahead.widen(stream, &(0..10), size), 0..PIECE_BYTES);
        let first = ahead.keep(stream, 0, data(0..PIECE_BYTES), &(0..10)).unwrap();
        assert_eq!(&*first, &*data(0..10));
        assert_eq!(&*ahead.find(stream, &(10..4_106)).unwrap(), &*data(10..4_106));
        // From the middle of a piece: to its end.
        let middle = PIECE_BYTES - 5..PIECE_BYTES + 5;
        assert!(ahead.find(stream, &middle).is_none());
        assert_eq!(ahead.widen(stream, &(4_106..4_200), size), 4_106..PIECE_BYTES);
        assert_eq!(ahead.widen(stream, &middle, size), middle);
        ahead.forget(stream);
        assert!(ahead.find(stream, &(0..10)).is_none());
    }

    #[test]
    fn a_piece_ends_with_its_object_and_holds_all_that_was_asked_for() {
        let (ahead, stream) = (Ahead::default(), StreamId(1));
        assert_eq!(ahead.widen(stream, &(0..10), 12), 0..12);
        let long = 0..2 * PIECE_BYTES;
        assert_eq!(ahead.widen(stream, &long, 3 * PIECE_BYTES), long);
    }
}
