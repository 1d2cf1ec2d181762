//! The record of a generation: the file that marks it complete.
//!
//! `gen-N.json` is written last, by rename: a generation without it is incomplete. It carries the checksums of
//! image and index, and the boot in which they were written or last verified. Within one boot the kernel's page
//! cache guarantees both files; in the next one they are read once and verified, so nothing has to be synced.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use millpond_core::{CatalogFile, Generation};
use serde::{Deserialize, Serialize};

/// Raised whenever an older program would misread a newer record.
const LAYOUT: u32 = 1;

/// The properties of one generation beside its two files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    layout: u32,
    /// What the catalog was built from and how (sources, owner, modes), as a hash.
    pub(super) identity: String,
    /// The listing's content as a hash that does not depend on its order.
    pub(super) content: String,
    /// Objects that the listing left out, by reason; the catalog itself counts those without a valid name.
    pub(super) left_out: BTreeMap<String, u64>,
    /// Some of the keys left out, with their reasons.
    pub(super) left_out_samples: Vec<(String, String)>,
    boot_id: String,
    image: FileChecksum,
    index: FileChecksum,
}

/// The result of a listing, beside the entries of the catalog.
#[derive(Clone, Debug, Default)]
pub(super) struct ListingSummary {
    /// As [`Record::content`].
    pub(super) content: String,
    /// As [`Record::left_out`].
    pub(super) left_out: BTreeMap<String, u64>,
    /// As [`Record::left_out_samples`].
    pub(super) left_out_samples: Vec<(String, String)>,
}

/// Length and checksum of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileChecksum {
    bytes: u64,
    blake3: String,
}

impl FileChecksum {
    fn of(path: &Path) -> io::Result<Self> {
        let bytes = fs::metadata(path)?.len();
        let blake3 = blake3::Hasher::new()
            .update_mmap(path)?
            .finalize()
            .to_hex()
            .to_string();
        Ok(Self { bytes, blake3 })
    }
}

/// Returns the paths of a generation in the catalog directory.
pub(super) fn files(directory: &Path, generation: Generation) -> CatalogFile {
    CatalogFile {
        generation,
        image: directory.join(format!("gen-{generation}.erofs")),
        index: directory.join(format!("gen-{generation}.index")),
    }
}

/// Returns the path of a generation's record.
pub(super) fn record_path(directory: &Path, generation: Generation) -> PathBuf {
    directory.join(format!("gen-{generation}.json"))
}

impl Record {
    /// Returns the record of a generation whose files were just written.
    pub(super) fn of(
        files: &CatalogFile,
        identity: &str,
        listed: ListingSummary,
        boot_id: &str,
    ) -> io::Result<Self> {
        let ListingSummary {
            content,
            left_out,
            left_out_samples,
        } = listed;
        Ok(Self {
            layout: LAYOUT,
            identity: identity.to_owned(),
            content,
            left_out,
            left_out_samples,
            boot_id: boot_id.to_owned(),
            image: FileChecksum::of(&files.image)?,
            index: FileChecksum::of(&files.index)?,
        })
    }

    /// Writes the record: from now on the generation is complete.
    pub(super) fn write(&self, directory: &Path, generation: Generation) -> io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix("gen-")
            .suffix(".new")
            .tempfile_in(directory)?;
        serde_json::to_writer(&mut file, self)?;
        file.persist(record_path(directory, generation))
            .map_err(|refused| refused.error)?;
        Ok(())
    }

    /// Reads a generation's record and verifies its files.
    ///
    /// Reads both files completely if they were last verified in another boot.
    pub(super) fn read(directory: &Path, generation: Generation, boot_id: &str) -> io::Result<Self> {
        let path = record_path(directory, generation);
        let mut record: Self = serde_json::from_reader(io::BufReader::new(File::open(path)?))?;
        if record.layout != LAYOUT {
            return Err(io::Error::other(format!(
                "catalog layout {} is not supported",
                record.layout
            )));
        }
        let files = files(directory, generation);
        for (path, wanted) in [(&files.image, &record.image), (&files.index, &record.index)] {
            let is_same = match record.boot_id == boot_id {
                true => fs::metadata(path)?.len() == wanted.bytes,
                false => FileChecksum::of(path)? == *wanted,
            };
            if !is_same {
                return Err(io::Error::other(format!(
                    "{} differs from what was written",
                    path.display()
                )));
            }
        }
        if record.boot_id != boot_id {
            boot_id.clone_into(&mut record.boot_id);
            record.write(directory, generation)?;
        }
        Ok(record)
    }
}
