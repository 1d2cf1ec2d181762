//! What the bucket holds: an ImageNet-like tree and two large files, all of which follows from one seed.

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use rand::{RngExt, SeedableRng};

/// Sizes of the small files, in bytes: those of ImageNet's photographs, mostly.
const SMALL_BYTES: std::ops::RangeInclusive<u64> = 20_000..=200_000;

/// Files in one class's directory.
const FILES_PER_CLASS: u64 = 100;

/// How many files there are, and how large.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Files of 20 to 200 KB.
    pub(crate) small_files: u64,
    /// Large ones.
    pub(crate) large_files: u64,
    /// The size of each large one.
    pub(crate) large_bytes: u64,
}

/// One file, before it is made.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// The object's key, and the file's path.
    pub(crate) key: String,
    /// What it holds follows from this.
    seed: u64,
    /// How much.
    pub(crate) size_bytes: u64,
}

/// All files.
#[derive(Clone, Debug)]
pub(crate) struct DataSet {
    /// In the order of their making.
    pub(crate) files: Vec<File>,
}

impl DataSet {
    /// Plans the files of a seed. Their bytes are made when they are asked for.
    pub(crate) fn plan(seed: u64, shape: Shape) -> Self {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let mut file = |key, size_bytes| File {
            key,
            seed: random.random(),
            size_bytes,
        };
        let mut sizes = rand::rngs::StdRng::seed_from_u64(!seed);
        let mut files: Vec<_> = (0..shape.large_files)
            .map(|number| file(format!("shards/large-{number}.bin"), shape.large_bytes))
            .collect();
        files.extend((0..shape.small_files).map(|number| {
            let class = number / FILES_PER_CLASS;
            file(
                format!("train/n{class:08}/n{class:08}_{number:05}.jpg"),
                sizes.random_range(SMALL_BYTES),
            )
        }));
        Self { files }
    }

    /// Bytes of all files together.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
    }
}

impl File {
    /// A part of the file, made now; shorter at the end.
    pub(crate) fn part(&self, offset: u64, length: u64) -> Bytes {
        let end = offset.saturating_add(length).min(self.size_bytes);
        origin::data::bytes(self.seed, offset..end)
    }
}

/// A checksum that is cheap beside reading: some 10 GB/s.
pub(crate) fn checksum() -> Digest {
    Digest::new(CrcAlgorithm::Crc64Nvme)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        small_files: 250,
        large_files: 2,
        large_bytes: 1_000_003,
    };

    #[test]
    fn a_seed_always_gives_the_same_files() {
        let (one, other) = (DataSet::plan(1, SHAPE), DataSet::plan(1, SHAPE));
        for (one, other) in one.files.iter().zip(&other.files) {
            assert_eq!((&one.key, one.size_bytes), (&other.key, other.size_bytes));
            assert_eq!(one.part(5, 1_000), other.part(5, 1_000));
        }
        assert_ne!(DataSet::plan(2, SHAPE).bytes(), one.bytes());
    }

    #[test]
    fn it_is_a_tree_of_classes_and_large_files() {
        let set = DataSet::plan(1, SHAPE);
        assert_eq!(set.files.len(), 252);
        let small = set
            .files
            .iter()
            .filter(|file| file.key.starts_with("train/n0000000"));
        assert!(
            small.clone().count() == 250 && small.clone().all(|file| SMALL_BYTES.contains(&file.size_bytes))
        );
        let keys: std::collections::BTreeSet<_> = set.files.iter().map(|file| &file.key).collect();
        assert_eq!(keys.len(), set.files.len());
    }

    #[test]
    fn parts_end_with_the_file() {
        let set = DataSet::plan(1, SHAPE);
        assert_eq!(set.files[0].part(1_000_000, 100).len(), 3);
    }
}
