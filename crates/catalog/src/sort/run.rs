//! Sorted records in a file, and the merge of several.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{Record, lengths, split};
use crate::{Error, Result};

/// Buffer of a run's writer.
const WRITE_BUFFER_BYTES: usize = 256 << 10;
/// Buffer of each run's reader.
const READ_BUFFER_BYTES: usize = 64 << 10;

/// A sorted sequence of records in an unnamed file.
#[derive(Debug)]
pub(crate) struct Run {
    file: File,
    /// Directory of the unnamed file; for errors.
    directory: PathBuf,
    length_bytes: u64,
}

/// Writer of a run.
pub(super) struct RunWriter {
    writer: BufWriter<File>,
    directory: PathBuf,
    length_bytes: u64,
}

impl RunWriter {
    pub(super) fn create(directory: &Path) -> Result<Self> {
        let file =
            tempfile::tempfile_in(directory).map_err(Error::io("create a spill file in", directory))?;
        let writer = BufWriter::with_capacity(WRITE_BUFFER_BYTES, file);
        Ok(Self {
            writer,
            directory: directory.to_owned(),
            length_bytes: 0,
        })
    }

    pub(super) fn write(&mut self, record: Record<'_>) -> Result<()> {
        let lengths = lengths(record).unwrap_or_default();
        for part in [&lengths, record.key, record.value] {
            self.writer
                .write_all(part)
                .map_err(Error::io("write a spill file in", &self.directory))?;
            self.length_bytes += part.len() as u64;
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Run> {
        let Self {
            writer,
            directory,
            length_bytes,
        } = self;
        let file = writer
            .into_inner()
            .map_err(|error| Error::io("write a spill file in", &directory)(error.into_error()))?;
        Ok(Run {
            file,
            directory,
            length_bytes,
        })
    }
}

/// Reader of several runs as one.
#[derive(Debug)]
pub(crate) struct Merge<'a> {
    /// Next record of each run that has one, the smallest on top.
    heads: BinaryHeap<Reverse<Head<'a>>>,
    /// Whether the record on top was returned already.
    given: bool,
}

impl<'a> Merge<'a> {
    pub(super) fn new(runs: &'a [Run]) -> Result<Self> {
        let mut heads = BinaryHeap::with_capacity(runs.len());
        for run in runs {
            let mut head = Head {
                reader: RunReader::new(run),
                key_bytes: 0,
                record: Vec::new(),
            };
            if head.advance()? {
                heads.push(Reverse(head));
            }
        }
        Ok(Self { heads, given: false })
    }

    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>> {
        if std::mem::replace(&mut self.given, true)
            && let Some(mut top) = self.heads.peek_mut()
            && !top.0.advance()?
        {
            PeekMut::pop(top);
        }
        Ok(self.heads.peek().map(|top| top.0.record()))
    }
}

/// Next record of one run.
#[derive(Debug)]
struct Head<'a> {
    reader: RunReader<'a>,
    key_bytes: usize,
    /// Key and value.
    record: Vec<u8>,
}

impl Head<'_> {
    fn record(&self) -> Record<'_> {
        let (key, value) = self.record.split_at_checked(self.key_bytes).unwrap_or_default();
        Record { key, value }
    }

    fn advance(&mut self) -> Result<bool> {
        let Some(record) = self.reader.next()? else {
            return Ok(false);
        };
        self.record.clear();
        self.record.extend_from_slice(record.key);
        self.record.extend_from_slice(record.value);
        self.key_bytes = record.key.len();
        Ok(true)
    }
}

impl Ord for Head<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.record().cmp(&other.record())
    }
}

impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.record() == other.record()
    }
}

impl Eq for Head<'_> {}

/// Reader of one run with its own buffer, so that several readers share the file.
#[derive(Debug)]
struct RunReader<'a> {
    run: &'a Run,
    /// Bytes of the file that were read into the buffer.
    read_bytes: u64,
    buffer: Vec<u8>,
    /// Offset of the next record in the buffer.
    start: usize,
}

impl<'a> RunReader<'a> {
    fn new(run: &'a Run) -> Self {
        Self {
            run,
            read_bytes: 0,
            buffer: Vec::new(),
            start: 0,
        }
    }

    fn next(&mut self) -> Result<Option<Record<'_>>> {
        while split(self.unread()).is_none() {
            if self.read_bytes == self.run.length_bytes {
                return if self.unread().is_empty() {
                    Ok(None)
                } else {
                    Err(Self::torn(self.read_bytes))
                };
            }
            self.fill()?;
        }
        let remaining = self.unread().len();
        let after = split(self.unread()).map_or(0, |(_, rest)| rest.len());
        let start = self.start;
        self.start += remaining - after;
        Ok(self.buffer.get(start..).and_then(split).map(|(record, _)| record))
    }

    fn unread(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// Moves unread bytes to the front and reads more after them.
    fn fill(&mut self) -> Result<()> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let left = self.run.length_bytes - self.read_bytes;
        let wanted = READ_BUFFER_BYTES.max(self.buffer.len());
        let more = usize::try_from(left).unwrap_or(wanted).min(wanted);
        let held = self.buffer.len();
        self.buffer.resize(held + more, 0);
        let free = self.buffer.get_mut(held..).unwrap_or_default();
        self.run
            .file
            .read_exact_at(free, self.read_bytes)
            .map_err(Error::io("read a spill file in", &self.run.directory))?;
        self.read_bytes += more as u64;
        Ok(())
    }

    const fn torn(offset: u64) -> Error {
        Error::corrupt("a spill file ends within a record", offset)
    }
}
