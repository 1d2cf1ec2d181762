//! External merge sort of byte strings.
//!
//! Records are collected in one arena of a fixed size. A full arena is sorted and becomes a **run**: an unnamed file.
//! When there are [`FAN_IN`] runs of one level, they are merged into one run of the next level, so that the number of
//! runs, each with its buffer, stays below [`FAN_IN`] times the levels: a few MiB for any number of records. Records that fit
//! into one arena are never written to the disk.
//!
//! Records are ordered by key, then by value; equal records are all retained.

mod run;

use std::path::{Path, PathBuf};

use self::run::{Merge, Run, RunWriter};
use crate::{Error, Result};

/// Runs of one level that are merged into one of the next: 64 readers of 64 KiB are 4 MiB of buffers.
const FAN_IN: usize = 64;
/// Bytes of a record in the arena besides its own: its lengths, and its entry in the sorted list.
const RECORD_OVERHEAD_BYTES: usize = size_of::<Lengths>() + size_of::<u32>();

/// Header of a record: the lengths of its key and value.
type Lengths = [u8; 8];

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Record<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

/// Collector of records.
#[derive(Debug)]
pub(crate) struct Sorter {
    directory: PathBuf,
    arena: Arena,
    /// Runs by level.
    levels: Vec<Vec<Run>>,
}

impl Sorter {
    /// Starts a sort with an arena of `memory_bytes`; a single larger record is accepted too.
    pub(crate) fn new(directory: &Path, memory_bytes: usize) -> Self {
        // Offsets of records are 32 bits.
        let limit_bytes = memory_bytes.min(1 << 30);
        Self {
            directory: directory.to_owned(),
            arena: Arena {
                limit_bytes,
                ..Arena::default()
            },
            levels: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, record: Record<'_>) -> Result<()> {
        if !self.arena.fits(record) {
            self.spill()?;
        }
        self.arena.push(record)
    }

    /// Sorts the records, which can then be read any number of times.
    pub(crate) fn finish(mut self) -> Result<Sorted> {
        if self.levels.is_empty() {
            self.arena.sort();
            return Ok(Sorted::Arena(self.arena));
        }
        self.spill()?;
        Ok(Sorted::Runs(self.levels.into_iter().flatten().collect()))
    }

    fn spill(&mut self) -> Result<()> {
        self.arena.sort();
        let mut writer = RunWriter::create(&self.directory)?;
        for record in self.arena.records() {
            writer.write(record)?;
        }
        self.arena.clear();
        let mut run = writer.finish()?;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let Some(runs) = self.levels.get_mut(level) else {
                break;
            };
            runs.push(run);
            if runs.len() < FAN_IN {
                break;
            }
            run = merge(&self.directory, &std::mem::take(runs))?;
        }
        Ok(())
    }
}

/// Sorted records.
#[derive(Debug)]
pub(crate) enum Sorted {
    Arena(Arena),
    Runs(Vec<Run>),
}

impl Sorted {
    /// Returns a reader from the first record on.
    pub(crate) fn records(&self) -> Result<Records<'_>> {
        Ok(match self {
            Self::Arena(arena) => Records::Arena { arena, next: 0 },
            Self::Runs(runs) => Records::Runs(Merge::new(runs)?),
        })
    }
}

/// Reader of records in order.
#[derive(Debug)]
pub(crate) enum Records<'a> {
    Arena { arena: &'a Arena, next: usize },
    Runs(Merge<'a>),
}

impl Records<'_> {
    /// Returns the next record, valid until the next call.
    pub(crate) fn next(&mut self) -> Result<Option<Record<'_>>> {
        match self {
            Self::Arena { arena, next } => {
                let record = arena.places.get(*next).and_then(|&place| arena.record(place));
                *next += 1;
                Ok(record)
            }
            Self::Runs(merge) => merge.next(),
        }
    }
}

/// Records in memory.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    bytes: Vec<u8>,
    /// Offset of each record.
    places: Vec<u32>,
    limit_bytes: usize,
}

impl Arena {
    fn fits(&self, record: Record<'_>) -> bool {
        let used = self.bytes.len() + size_of_val(self.places.as_slice());
        let more = record.key.len() + record.value.len() + RECORD_OVERHEAD_BYTES;
        self.places.is_empty() || used.saturating_add(more) <= self.limit_bytes
    }

    fn push(&mut self, record: Record<'_>) -> Result<()> {
        if self.bytes.capacity() == 0 {
            // Allocated completely (untouched memory is free): growing would need two copies.
            self.bytes.reserve_exact(self.limit_bytes - self.limit_bytes / 16);
        }
        let place = u32::try_from(self.bytes.len()).ok();
        let (place, lengths) = place
            .zip(lengths(record))
            .ok_or_else(|| Error::Options("a record of more than 4 GiB cannot be sorted".to_owned()))?;
        self.places.push(place);
        self.bytes.extend_from_slice(&lengths);
        self.bytes.extend_from_slice(record.key);
        self.bytes.extend_from_slice(record.value);
        Ok(())
    }

    fn sort(&mut self) {
        let mut places = std::mem::take(&mut self.places);
        places.sort_unstable_by(|&left, &right| self.record(left).cmp(&self.record(right)));
        self.places = places;
    }

    fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.places.iter().filter_map(|&place| self.record(place))
    }

    fn record(&self, place: u32) -> Option<Record<'_>> {
        let bytes = self.bytes.get(usize::try_from(place).ok()?..)?;
        split(bytes).map(|(record, _)| record)
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.places.clear();
    }
}

/// Merges runs into one run.
fn merge(directory: &Path, runs: &[Run]) -> Result<Run> {
    let mut writer = RunWriter::create(directory)?;
    let mut merge = Merge::new(runs)?;
    while let Some(record) = merge.next()? {
        writer.write(record)?;
    }
    writer.finish()
}

fn lengths(record: Record<'_>) -> Option<Lengths> {
    let key = u32::try_from(record.key.len()).ok()?.to_le_bytes();
    let value = u32::try_from(record.value.len()).ok()?.to_le_bytes();
    let mut lengths = Lengths::default();
    let (head, tail) = lengths.split_at_mut(key.len());
    head.copy_from_slice(&key);
    tail.copy_from_slice(&value);
    Some(lengths)
}

/// Splits the first record off `bytes`; `None`: it is incomplete.
fn split(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let (key_length, rest) = bytes.split_first_chunk()?;
    let (value_length, rest) = rest.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*key_length)).ok()?)?;
    let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*value_length)).ok()?)?;
    Some((Record { key, value }, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Pair = (Vec<u8>, Vec<u8>);

    fn sorted(pairs: &[Pair], memory_bytes: usize) -> Vec<Pair> {
        let directory = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::new(directory.path(), memory_bytes);
        for (key, value) in pairs {
            sorter.push(Record { key, value }).unwrap();
        }
        let sorted = sorter.finish().unwrap();
        let read = || {
            let (mut records, mut pairs) = (sorted.records().unwrap(), Vec::new());
            while let Some(record) = records.next().unwrap() {
                pairs.push((record.key.to_vec(), record.value.to_vec()));
            }
            pairs
        };
        let first = read();
        assert_eq!(read(), first, "a second reading gives the same");
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            0,
            "runs have no names"
        );
        first
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn sorts_as_a_vector_does(
            mut pairs: Vec<Pair>,
            memory_bytes in prop_oneof![Just(1), Just(100), Just(1000), Just(1 << 20)],
        ) {
            let result = sorted(&pairs, memory_bytes);
            pairs.sort();
            prop_assert_eq!(result, pairs);
        }
    }

    #[test]
    fn merges_more_runs_than_are_read_at_once() {
        // One record a run: 64 * 64 runs and some make three levels.
        let mut pairs: Vec<Pair> = (0..FAN_IN * FAN_IN + 70)
            .map(|i| ((i * 7919 % 5000).to_be_bytes().to_vec(), vec![1]))
            .collect();
        let result = sorted(&pairs, 1);
        pairs.sort();
        assert_eq!(result, pairs);
    }

    #[test]
    fn takes_records_larger_than_its_buffers() {
        let mut pairs: Vec<Pair> = (0..5u8)
            .rev()
            .map(|i| (vec![i; 300_000], vec![i; 100_000]))
            .collect();
        let result = sorted(&pairs, 1000);
        pairs.sort();
        assert_eq!(result, pairs);
    }
}
