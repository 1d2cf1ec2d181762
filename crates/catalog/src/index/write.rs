//! Writer of an index.

use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use tempfile::NamedTempFile;
use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use super::{DiskRecord, HEADER_BYTES, Header, Info, RECORD_BYTES, uuid};
use crate::sort::{Record, Sorted, Sorter};
use crate::tree_writer::IndexEntry;
use crate::{Error, Result};

/// Buffer with which the image is read for its digest.
const READ_BUFFER_BYTES: usize = 256 << 10;

/// Index whose records are written, without its header.
pub(crate) struct IndexWriter {
    file: NamedTempFile,
    records: u64,
    digest: blake3::Hash,
}

impl IndexWriter {
    /// Adds a record in the form in which records are sorted before they are written.
    pub(crate) fn sort(sorter: &mut Sorter, entry: &IndexEntry) -> Result<()> {
        let IndexEntry { id, nid, parent } = *entry;
        let mut value = [0; 8];
        let (head, tail) = value.split_at_mut(4);
        head.copy_from_slice(&nid.to_be_bytes());
        tail.copy_from_slice(&parent.to_be_bytes());
        sorter.push(Record {
            key: id.as_bytes(),
            value: &value,
        })
    }

    /// Writes the records to a file beside `path`.
    pub(crate) fn create(path: &Path, records: &Sorted) -> Result<Self> {
        let action = "write the index";
        let file = temporary_beside(path)?;
        let mut hasher = blake3::Hasher::new();
        let mut writer = BufWriter::with_capacity(READ_BUFFER_BYTES, file);
        writer
            .write_all(&[0; HEADER_BYTES])
            .map_err(Error::io(action, path))?;
        let (mut records, mut count) = (records.records()?, 0);
        while let Some(record) = records.next()? {
            let bytes = disk_record(record).ok_or(Error::corrupt("a spill file's record is invalid", 0))?;
            hasher.update(&bytes);
            writer.write_all(&bytes).map_err(Error::io(action, path))?;
            count += 1;
        }
        let file = writer
            .into_inner()
            .map_err(|error| Error::io(action, path)(error.into_error()))?;
        Ok(Self {
            file,
            records: count,
            digest: hasher.finalize(),
        })
    }

    /// Returns the UUID of the index's image.
    pub(crate) fn uuid(&self) -> [u8; 16] {
        uuid(self.digest.as_bytes())
    }

    /// Writes the rest. The file still has its temporary name.
    pub(crate) fn finish(self, path: &Path, info: &Info, image: &mut NamedTempFile) -> Result<NamedTempFile> {
        let Self {
            mut file,
            records,
            digest,
        } = self;
        let (image_bytes, image_digest) = digest_of(image)?;
        let text = serde_json::to_vec(info).map_err(|error| Error::io("describe", path)(error.into()))?;
        let digests = [
            *digest.as_bytes(),
            *blake3::hash(&text).as_bytes(),
            *image_digest.as_bytes(),
        ];
        let header = Header::new(records, text.len() as u64, image_bytes, digests);
        let written = file
            .write_all(&text)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(header.as_bytes()))
            .and_then(|()| file.as_file().sync_data());
        written.map_err(Error::io("write the index", path))?;
        Ok(file)
    }
}

/// Creates a file that is renamed to `path` when it is complete, else removed.
pub(crate) fn temporary_beside(path: &Path) -> Result<NamedTempFile> {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    tempfile::Builder::new()
        .prefix(".catalog-")
        .tempfile_in(directory)
        .map_err(Error::io("create a file in", directory))
}

fn disk_record(record: Record<'_>) -> Option<[u8; RECORD_BYTES]> {
    let (nid, parent) = record.value.split_first_chunk()?;
    let record = DiskRecord {
        id: record.key.try_into().ok()?,
        nid: U32::new(u32::from_be_bytes(*nid)),
        parent: U32::new(u32::from_be_bytes(parent.try_into().ok()?)),
    };
    record.as_bytes().try_into().ok()
}

fn digest_of(file: &mut NamedTempFile) -> Result<(u64, blake3::Hash)> {
    let path = file.path().to_owned();
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; READ_BUFFER_BYTES];
    let mut total = 0;
    file.seek(SeekFrom::Start(0)).map_err(Error::io("read", &path))?;
    loop {
        let read = file.read(&mut buffer).map_err(Error::io("read", &path))?;
        if read == 0 {
            return Ok((total, hasher.finalize()));
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
        total += read as u64;
    }
}
