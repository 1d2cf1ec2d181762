//! The cached large file, page cache hot, beside the same file on the disk.

use std::path::Path;

use anyhow::Result;
use harness::View;
use millpond_measure::{Comparison, reading};

use crate::data::expect_bytes;
use crate::lab::{Lab, Which};
use crate::row::{Goal, Rate, Row};

const ROUNDS: usize = 9;
const SEQUENTIAL_BUFFER_BYTES: usize = 1 << 20;
const RANDOM_READS_MAX: u64 = 100_000;
const SEED: u64 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Sequential,
    Random(usize),
    Mapped,
}

impl Shape {
    fn words(self) -> String {
        match self {
            Self::Sequential => "sequential".to_owned(),
            Self::Random(bytes) => format!("random {} KiB", bytes >> 10),
            Self::Mapped => "mmap".to_owned(),
        }
    }

    /// Reads all of the file, or so many random pieces of it.
    fn read(self, file: &Path, bytes: u64) -> Result<()> {
        let (read, expected) = match self {
            Self::Sequential => (
                reading::read_sequentially(file, u64::MAX, SEQUENTIAL_BUFFER_BYTES)?,
                bytes,
            ),
            Self::Random(length) => {
                let (length_bytes, reads) = (u64::try_from(length)?, random_reads(bytes, length));
                let read = reading::read_randomly(file, bytes, length, reads, SEED)?;
                (read, length_bytes * reads)
            }
            Self::Mapped => (reading::read_mapped(file)?, bytes),
        };
        expect_bytes(read, expected)
    }

    fn rate(self, bytes: u64) -> Rate {
        match self {
            Self::Sequential | Self::Mapped => Rate::Bytes(bytes),
            Self::Random(length) => Rate::Reads(random_reads(bytes, length)),
        }
    }
}

/// As many as give all bytes of the file, if these are not too many.
fn random_reads(bytes: u64, length: usize) -> u64 {
    (bytes / u64::try_from(length).unwrap_or(1).max(1)).min(RANDOM_READS_MAX)
}

/// With the goals of the kernel view.
pub(crate) fn measure(lab: &mut Lab) -> Result<Vec<Row>> {
    in_view(lab, View::Kernel)
}

/// With the goals of this view.
pub(crate) fn in_view(lab: &mut Lab, view: View) -> Result<Vec<Row>> {
    let shapes: &[(Shape, f64)] = match view {
        View::Kernel => &[
            (Shape::Sequential, 0.97),
            (Shape::Random(128 << 10), 0.97),
            (Shape::Random(4 << 10), 0.97),
            (Shape::Mapped, 0.97),
        ],
        View::Fuse => &[
            (Shape::Sequential, 0.97),
            (Shape::Random(128 << 10), 0.97),
            (Shape::Random(4 << 10), 0.80),
        ],
    };
    let during = format!("reading the large file, {}", view.label());
    let kept = lab.kept(view, Which::Large, &during)?;
    let bytes = lab.large.file_bytes();
    let (native, ours) = (
        kept.native.join(lab.large.first()),
        kept.ours.join(lab.large.first()),
    );
    let mut rows = Vec::new();
    for &(shape, goal) in shapes {
        for file in [&native, &ours] {
            shape.read(file, bytes)?;
        }
        let measured = Comparison::default()
            .with("native", || shape.read(&native, bytes))
            .with("Millpond", || shape.read(&ours, bytes))
            .run(lab.rounds(ROUNDS))?;
        let what = format!("{}, large file hot, {} / native", view.label(), shape.words());
        rows.push(Row::ratio(what, &measured, shape.rate(bytes))?.with_goal(Goal::AtLeast(goal)));
    }
    lab.unmount(kept.mount)?;
    Ok(rows)
}
