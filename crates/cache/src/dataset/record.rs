//! The small file that says that a generation is whole.
//!
//! `gen-N.json` is written last, by rename: a generation without it was never finished. It carries the checksums of
//! image and index, and the boot in which they were written or last compared. Within one boot the kernel's page
//! cache vouches for both files; in the next one they are read once and compared, so nothing has to be synced.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use millpond_core::{CatalogFile, Generation};
use serde::{Deserialize, Serialize};

/// Raised whenever an older program could not read a newer record rightly.
const LAYOUT: u32 = 1;

/// What is known of one generation beside its two files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    layout: u32,
    /// What the catalog was made of and how (sources, owner, modes), as a hash.
    pub(super) identity: String,
    /// The listing's content as a hash that does not depend on its order.
    pub(super) content: String,
    /// What the listing left out, by reason; the catalog itself counts what it could not name.
    pub(super) left_out: BTreeMap<String, u64>,
    /// Some of the keys left out, with their reasons.
    pub(super) left_out_samples: Vec<(String, String)>,
    boot_id: String,
    image: FileChecksum,
    index: FileChecksum,
}

/// What a listing brought, beside the entries of the catalog.
#[derive(Clone, Debug, Default)]
pub(super) struct ListingSummary {
    /// As [`Record::objects`].
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

/// The paths of a generation in the catalog directory.
pub(super) fn files(directory: &Path, generation: Generation) -> CatalogFile {
    CatalogFile {
        generation,
        image: directory.join(format!("gen-{generation}.erofs")),
        index: directory.join(format!("gen-{generation}.index")),
    }
}

/// The path of a generation's record.
pub(super) fn record_path(directory: &Path, generation: Generation) -> PathBuf {
    directory.join(format!("gen-{generation}.json"))
}

impl Record {
    /// Describes a generation whose files were just written.
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

    /// Writes the record: from now on the generation counts as whole.
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

    /// Reads a generation's record and makes sure that its files are what was written.
    ///
    /// Reads both files whole where they come from before the last boot.
    pub(super) fn read(directory: &Path, generation: Generation, boot_id: &str) -> io::Result<Self> {
        let path = record_path(directory, generation);
        let mut record: Self = serde_json::from_reader(io::BufReader::new(File::open(path)?))?;
        if record.layout != LAYOUT {
            return Err(io::Error::other(format!(
                "catalog layout {} is not known",
                record.layout
            )));
        }
        let files = files(directory, generation);
        for (path, wanted) in [(&files.image, &record.image), (&files.index, &record.index)] {
            let same = match record.boot_id == boot_id {
                true => fs::metadata(path)?.len() == wanted.bytes,
                false => FileChecksum::of(path)? == *wanted,
            };
            if !same {
                return Err(io::Error::other(format!(
                    "{} is not what was written",
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
