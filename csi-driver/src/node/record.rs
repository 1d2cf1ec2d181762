//! Record of a volume on the node's disk: its request, and what is mounted.
//!
//! One JSON file per target, with a version, written atomically and synced before the volume is mounted: after a reboot the
//! kubelet publishes again, and the pod gets the same generation.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use millpond_core::{CatalogFile, Generation, TierDirectories};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::plan::write;

/// Version of the format, raised when a record changes its meaning.
const VERSION: u32 = 1;

/// Identity of a published volume.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeKey {
    /// Id of the volume.
    pub volume_id: String,
    /// Its target path.
    pub target: PathBuf,
}

/// CSI access mode of the volume; it is read-only in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessMode(pub i32);

/// Pod of a volume. Fields are empty if the kubelet does not set them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// Selector of a volume's Dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum DatasetSelector {
    /// By uid; the name is that at the volume's creation.
    Uid {
        uid: String,
        namespace: String,
        name: String,
    },
    /// By name.
    Name { namespace: String, name: String },
}

/// Request to publish a volume: two that differ are not the same volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRequest {
    /// Id of the volume.
    pub volume_id: String,
    pub(crate) wanted: DatasetSelector,
    pub(crate) access_mode: AccessMode,
    pub(crate) read_only: bool,
    /// SELinux context of its files; `None`: their own.
    pub(crate) context: Option<String>,
    pub(crate) pod: PodRef,
}

/// Dataset of the volume at its publication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordedDataset {
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) pool: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordedTier {
    objects: PathBuf,
    landing: PathBuf,
}

/// What is mounted at the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// A kernel view.
    Kernel {
        generation: u64,
        image: PathBuf,
        index: PathBuf,
        tiers: Vec<RecordedTier>,
        count_opens: bool,
    },
    /// The tree of one generation in the FUSE mount.
    Tree { generation: u64 },
    /// The tree in the FUSE mount that follows the newest generation.
    Live,
}

impl Kind {
    pub(crate) fn kernel(catalog: &CatalogFile, tiers: &[TierDirectories], count_opens: bool) -> Self {
        let CatalogFile {
            generation,
            image,
            index,
        } = catalog.clone();
        let tiers = tiers.iter().map(|tier| RecordedTier {
            objects: tier.objects.clone(),
            landing: tier.landing.clone(),
        });
        Self::Kernel {
            generation: generation.0,
            image,
            index,
            tiers: tiers.collect(),
            count_opens,
        }
    }

    /// Returns the fixed generation; `None`: the volume follows the newest.
    pub(crate) fn generation(&self) -> Option<Generation> {
        match self {
            Self::Kernel { generation, .. } | Self::Tree { generation } => Some(Generation(*generation)),
            Self::Live => None,
        }
    }
}

impl RecordedTier {
    pub(crate) fn directories(&self) -> TierDirectories {
        TierDirectories {
            objects: self.objects.clone(),
            landing: self.landing.clone(),
        }
    }
}

/// Record of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    pub(crate) target: PathBuf,
    pub(crate) request: VolumeRequest,
    pub(crate) dataset: RecordedDataset,
    pub(crate) kind: Kind,
}

impl Record {
    pub(crate) fn new(target: PathBuf, request: VolumeRequest, dataset: RecordedDataset, kind: Kind) -> Self {
        Self {
            version: VERSION,
            target,
            request,
            dataset,
            kind,
        }
    }

    pub(crate) fn key(&self) -> VolumeKey {
        VolumeKey {
            volume_id: self.request.volume_id.clone(),
            target: self.target.clone(),
        }
    }

    /// Returns the fixed generation; 0: the volume follows the newest.
    pub(crate) fn generation(&self) -> u64 {
        self.kind.generation().map_or(0, |generation| generation.0)
    }

    pub(crate) fn is_kernel(&self) -> bool {
        matches!(self.kind, Kind::Kernel { .. })
    }
}

/// All records of the node, by target.
#[derive(Debug)]
pub(crate) struct Records {
    directory: PathBuf,
}

impl Records {
    /// Reads all records. Other files are ignored.
    ///
    /// # Errors
    /// If the directory cannot be read or created.
    pub(crate) fn open(directory: PathBuf) -> io::Result<(Self, BTreeMap<PathBuf, Record>)> {
        std::fs::create_dir_all(&directory)?;
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path) {
                Ok(record) => {
                    found.insert(record.target.clone(), record);
                }
                Err(error) => {
                    warn!(file = %path.display(), %error, "failed to read a volume's record; the volume is not adopted")
                }
            }
        }
        Ok((Self { directory }, found))
    }

    pub(crate) fn put(&self, record: &Record) -> io::Result<()> {
        let bytes = serde_json::to_vec(record).map_err(io::Error::other)?;
        write(&self.file(&record.target), &bytes)?;
        // The directory is synced, so that the name survives a reboot.
        std::fs::File::open(&self.directory)?.sync_all()
    }

    pub(crate) fn remove(&self, target: &Path) -> io::Result<()> {
        match std::fs::remove_file(self.file(target)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn file(&self, target: &Path) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        let name = blake3::hash(target.as_os_str().as_bytes()).to_hex();
        self.directory.join(format!("{name}.json"))
    }
}

fn read(path: &Path) -> io::Result<Record> {
    let record: Record = serde_json::from_slice(&std::fs::read(path)?)?;
    if record.version != VERSION {
        let reason = format!("version {} instead of {VERSION}", record.version);
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(record)
}
