//! `millpond bench`: reads of a mount measured beside reads of the local disk.
//!
//! The cached files of the mount are read through it, and a copy of the same files is read from the cache's own file
//! system. Both sides of each shape are read alternately ([`Comparison`]), so that a disturbance affects both.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use millpond_measure::{Comparison, reading};

use super::terminal::{bytes, print_error, print_line};
use crate::mount::run_directory::RunDirectory;
use crate::mount::spec::Spec;

/// Rounds of each shape; the median is reported.
const ROUNDS: usize = 5;

/// Small files measured.
const SMALL_FILES: usize = 2_000;

/// Largest size of a small file.
const SMALL_BYTES: u64 = 1 << 20;

/// Most bytes of the large file that are copied and read.
const LARGE_BYTES: u64 = 1 << 30;

/// Most bytes of small files that are copied.
const COPY_BYTES: u64 = 2 << 30;

/// Buffer of the sequential reads.
const SEQUENTIAL_BUFFER_BYTES: usize = 256 << 10;

/// Most names scanned for the sample: a tree of millions is not walked for one large file.
const MAX_SCANNED_NAMES: usize = 50_000;

/// Random reads of one round.
const RANDOM_READS: u64 = 4_000;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Mount directory, or a path below it.
    directory: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (run_dir, directory, _) = RunDirectory::containing(&arguments.directory)?;
    let spec = Spec::read(&run_dir.spec())?;
    let sample = Sample::choose(&directory)?;
    let copy = tempfile::Builder::new()
        .prefix("millpond-bench-")
        .tempdir_in(&spec.cache.directory)
        .context("failed to create a directory beside the cache")?;
    print_error(format_args!(
        "copying {} files ({}) to the local disk for comparison",
        sample.small.len() + usize::from(sample.large.is_some()),
        bytes(sample.bytes)
    ));
    sample.copy(&directory, copy.path())?;
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_header(["read", "Millpond", "native", "ratio"]);
    for shape in Shape::ALL {
        let Some(amount) = shape.amount(&sample) else {
            continue;
        };
        let (beside, through) = (copy.path(), directory.as_path());
        // Warms the page cache on both sides.
        shape.read(beside, &sample)?;
        shape.read(through, &sample)?;
        let measured = Comparison::default()
            .with("native", || shape.read(beside, &sample))
            .with("Millpond", || shape.read(through, &sample))
            .run(ROUNDS)?;
        let [native, ours] = measured.as_slice() else {
            bail!("expected two measurements, got {}", measured.len());
        };
        table.add_row([
            shape.label().to_owned(),
            amount.rate(ours.median_seconds),
            amount.rate(native.median_seconds),
            format!("{:.2}", ours.ratio),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    print_line(table);
    Ok(ExitCode::SUCCESS)
}

/// Files that are measured, by their paths within the mount.
struct Sample {
    small: Vec<PathBuf>,
    /// Path, and bytes of it that are read.
    large: Option<(PathBuf, u64)>,
    bytes: u64,
}

impl Sample {
    fn choose(directory: &Path) -> Result<Self> {
        let mut sample = Self {
            small: Vec::new(),
            large: None,
            bytes: 0,
        };
        let mut pending = vec![directory.to_owned()];
        let mut scanned = 0;
        while let Some(next) = pending.pop() {
            for entry in fs::read_dir(&next).with_context(|| format!("failed to list {}", next.display()))? {
                let entry = entry?;
                scanned += 1;
                let metadata = entry.metadata()?;
                if metadata.is_dir() {
                    pending.push(entry.path());
                    continue;
                }
                let path = entry.path().strip_prefix(directory)?.to_owned();
                sample.consider(path, metadata.len());
            }
            let enough = sample.small.len() >= SMALL_FILES && sample.large.is_some();
            if enough || scanned >= MAX_SCANNED_NAMES {
                break;
            }
        }
        sample.bytes += sample.large.as_ref().map_or(0, |(_, bytes)| *bytes);
        if sample.small.is_empty() && sample.large.is_none() {
            bail!("{} has no files to read", directory.display());
        }
        Ok(sample)
    }

    fn consider(&mut self, path: PathBuf, bytes: u64) {
        if bytes > SMALL_BYTES {
            let read = bytes.min(LARGE_BYTES);
            if self.large.as_ref().is_none_or(|(_, known)| *known < read) {
                self.large = Some((path, read));
            }
        } else if self.small.len() < SMALL_FILES && self.bytes + bytes <= COPY_BYTES {
            self.bytes += bytes;
            self.small.push(path);
        }
    }

    fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        let complete = self.small.iter().map(|path| (path, u64::MAX));
        for (path, limit) in complete.chain(self.large.iter().map(|(path, bytes)| (path, *bytes))) {
            let (from, to) = (from.join(path), to.join(path));
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent)?;
            }
            let copied = File::open(&from)
                .and_then(|from| io::copy(&mut from.take(limit), &mut File::create(&to)?))
                .with_context(|| format!("failed to copy {}", from.display()));
            copied?;
        }
        Ok(())
    }
}

/// Amount that one pass reads.
enum Amount {
    Bytes(u64),
    Files(usize),
    Reads(u64),
}

impl Amount {
    #[expect(clippy::cast_precision_loss, reason = "a rate for display")]
    fn rate(&self, seconds: f64) -> String {
        let per_second = |amount: f64| amount / seconds.max(f64::EPSILON);
        match self {
            Self::Bytes(bytes) => format!("{:.0} MB/s", per_second(*bytes as f64) / 1e6),
            Self::Files(files) => format!("{:.0} files/s", per_second(*files as f64)),
            Self::Reads(reads) => format!("{:.0} reads/s", per_second(*reads as f64)),
        }
    }
}

#[derive(Clone, Copy)]
enum Shape {
    Sequential,
    Random128,
    Random4,
    Small,
    Find,
}

impl Shape {
    const ALL: [Self; 5] = [
        Self::Sequential,
        Self::Random128,
        Self::Random4,
        Self::Small,
        Self::Find,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Sequential => "one large file, sequential",
            Self::Random128 => "one large file, random 128 KiB",
            Self::Random4 => "one large file, random 4 KiB",
            Self::Small => "small files, random order",
            Self::Find => "names and sizes of the small files",
        }
    }

    /// Returns what a pass reads; `None`: the mount has no such files.
    fn amount(self, sample: &Sample) -> Option<Amount> {
        match self {
            Self::Sequential => sample.large.as_ref().map(|(_, bytes)| Amount::Bytes(*bytes)),
            Self::Random128 | Self::Random4 => sample.large.as_ref().map(|_| Amount::Reads(RANDOM_READS)),
            Self::Small | Self::Find => {
                (!sample.small.is_empty()).then_some(Amount::Files(sample.small.len()))
            }
        }
    }

    fn read(self, root: &Path, sample: &Sample) -> Result<()> {
        match (self, &sample.large) {
            (Self::Sequential, Some((path, bytes))) => {
                reading::read_sequentially(&root.join(path), *bytes, SEQUENTIAL_BUFFER_BYTES)?;
            }
            (Self::Random128, Some((path, bytes))) => {
                reading::read_randomly(&root.join(path), *bytes, 128 << 10, RANDOM_READS, 2)?;
            }
            (Self::Random4, Some((path, bytes))) => {
                reading::read_randomly(&root.join(path), *bytes, 4 << 10, RANDOM_READS, 2)?;
            }
            (Self::Sequential | Self::Random128 | Self::Random4, None) => {}
            (Self::Small, _) => {
                reading::read_files(root, &reading::shuffled(&sample.small, 1), 1)?;
            }
            (Self::Find, _) => reading::stat_files(root, &sample.small)?,
        }
        Ok(())
    }
}
