//! What the bucket holds: many files, and a large one.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// For people.
pub(crate) const DESCRIPTION: &str = "2000 files of 100 KB and one of 256 MiB";

const FILES: u64 = 2_000;
const FILE_BYTES: u64 = 100_000;
const LARGE_BYTES: u64 = 256 << 20;

/// Written at once.
const PIECE_BYTES: u64 = 1 << 20;

/// The files, as they were written.
#[derive(Debug)]
pub(crate) struct Data {
    /// Of all bytes, in the order of the names: SHA-256.
    pub(crate) checksum: String,
}

impl Data {
    /// Writes the files into the bucket's directory at the S3 server.
    pub(crate) fn write(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("failed to make {}", directory.display()))?;
        let mut checksum = Sha256::new();
        for number in 0..FILES {
            let path = directory.join(format!("image-{number:04}"));
            write_file(&path, number, FILE_BYTES, &mut checksum)?;
        }
        // Its name comes last, too.
        write_file(&directory.join("shard.tar"), FILES, LARGE_BYTES, &mut checksum)?;
        Ok(Self {
            checksum: HEXLOWER.encode(&checksum.finalize()),
        })
    }
}

fn write_file(path: &Path, seed: u64, size_bytes: u64, checksum: &mut Sha256) -> Result<()> {
    let failed = || format!("failed to write {}", path.display());
    let mut file = File::create(path).with_context(failed)?;
    let mut offset = 0;
    while offset < size_bytes {
        let end = size_bytes.min(offset + PIECE_BYTES);
        let piece = origin::data::bytes(seed, offset..end);
        checksum.update(&piece);
        file.write_all(&piece).with_context(failed)?;
        offset = end;
    }
    Ok(())
}
