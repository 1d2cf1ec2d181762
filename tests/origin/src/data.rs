//! Data from a seed, any range of it without the rest.
//!
//! Word `i` (8 bytes, little endian) of the data of a seed is SplitMix64's output at position `i`, so a range costs
//! only its own length, and a byte at a wrong offset, or of another seed, is seen when it is compared.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

const WORD: u64 = 8;

/// The first place where data differs from what its seed gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mismatch {
    /// Offset of the differing byte in the object.
    pub offset: u64,
    /// What the seed gives there.
    pub expected: u8,
    /// What was found there.
    pub found: u8,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            offset,
            expected,
            found,
        } = self;
        write!(f, "byte {offset} is {found:#04x}, not {expected:#04x}")
    }
}

impl std::error::Error for Mismatch {}

/// Gives the bytes of `range` of the data of `seed`.
///
/// # Panics
/// When the range is longer than memory.
pub fn bytes(seed: u64, range: Range<u64>) -> Bytes {
    let length = usize::try_from(range.end.saturating_sub(range.start)).expect("the range fits in memory");
    let mut buffer = vec![0; length];
    fill(seed, range.start, &mut buffer);
    Bytes::from(buffer)
}

/// Fills `buffer` with the data of `seed` from `offset` on.
pub fn fill(seed: u64, offset: u64, buffer: &mut [u8]) {
    let start = origin_of(seed);
    let mut position = offset / WORD;
    let skipped = usize::try_from(offset % WORD).expect("less than a word");
    let mut rest = buffer;
    if skipped > 0 {
        let word = word(start, position).to_le_bytes();
        let head = rest.len().min(word.len() - skipped);
        let (first, after) = rest.split_at_mut(head);
        first.copy_from_slice(&word[skipped..skipped + head]);
        rest = after;
        position += 1;
    }
    let (words, tail) = rest.as_chunks_mut::<8>();
    for chunk in words {
        *chunk = word(start, position).to_le_bytes();
        position = position.wrapping_add(1);
    }
    let last = word(start, position).to_le_bytes();
    tail.copy_from_slice(&last[..tail.len()]);
}

/// Compares `found`, read at `offset`, with the data of `seed`.
pub fn check(seed: u64, offset: u64, found: &[u8]) -> Result<(), Mismatch> {
    /// Compared piece by piece, so that checking a gigabyte takes no gigabyte.
    const PIECE: usize = 64 * 1024;
    let mut expected = [0; PIECE];
    let mut at = offset;
    for piece in found.chunks(PIECE) {
        let expected = &mut expected[..piece.len()];
        fill(seed, at, expected);
        if expected != piece {
            return Err(first_difference(at, expected, piece));
        }
        at += piece.len() as u64;
    }
    Ok(())
}

/// That many zeros.
pub(crate) fn zeros(count: u64) -> Bytes {
    Bytes::from(vec![0; usize::try_from(count).expect("a piece fits in memory")])
}

fn first_difference(offset: u64, expected: &[u8], found: &[u8]) -> Mismatch {
    for (at, (&expected, &found)) in (offset..).zip(expected.iter().zip(found)) {
        if expected != found {
            return Mismatch {
                offset: at,
                expected,
                found,
            };
        }
    }
    unreachable!("called with slices that differ")
}

/// Where the words of a seed start. Mixed, so that the data of seeds 1 and 2 are not shifted copies of each other.
fn origin_of(seed: u64) -> u64 {
    mix(seed ^ 0x6d69_6c6c_706f_6e64)
}

fn word(start: u64, position: u64) -> u64 {
    mix(start.wrapping_add(position.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_range_is_the_same_part_of_the_whole() {
        let whole = bytes(7, 0..200);
        for start in 0..40 {
            for end in start..200 {
                assert_eq!(
                    bytes(7, start as u64..end as u64),
                    whole[start..end],
                    "{start}..{end}"
                );
            }
        }
    }

    #[test]
    fn seeds_and_offsets_differ() {
        assert_ne!(bytes(1, 0..64), bytes(2, 0..64));
        assert_ne!(bytes(1, 0..64), bytes(1, 8..72));
        assert_ne!(bytes(0, 8..72), bytes(1, 0..64));
    }

    #[test]
    fn the_first_wrong_byte_is_named() {
        let mut wrong = bytes(3, 5..200_005).to_vec();
        assert_eq!(check(3, 5, &wrong), Ok(()));
        let expected = wrong[150_000];
        wrong[150_000] ^= 0x10;
        wrong[150_001] ^= 0x10;
        assert_eq!(
            check(3, 5, &wrong),
            Err(Mismatch {
                offset: 150_005,
                expected,
                found: expected ^ 0x10
            })
        );
    }
}
