//! Tiers of a worker, from its command line, and a Dataset's directories in them.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use millpond_cache::Medium;

/// Option of one tier: `memory:PATH:BYTES` or `disk:PATH:BYTES`.
///
/// Only the path can contain a colon, so the text is parsed from both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierOption {
    /// Medium of the tier.
    pub medium: Medium,
    /// Directory of this pool in it.
    pub path: PathBuf,
    /// Capacity in bytes.
    pub bytes: u64,
}

/// Error of a `--tier` text.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not a tier: write memory:PATH:BYTES or disk:PATH:BYTES")]
pub struct TierOptionError {
    text: String,
}

impl FromStr for TierOption {
    type Err = TierOptionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (medium, rest) = text.split_once(':')?;
            let (path, bytes) = rest.rsplit_once(':')?;
            let medium = match medium {
                "memory" => Medium::Memory,
                "disk" => Medium::Disk,
                _ => return None,
            };
            let path = Path::new(path);
            path.is_absolute().then_some(())?;
            Some(Self {
                medium,
                path: path.to_owned(),
                bytes: bytes.parse().ok().filter(|bytes| *bytes > 0)?,
            })
        };
        parse().ok_or_else(|| TierOptionError {
            text: text.to_owned(),
        })
    }
}

/// All tiers of a worker.
#[derive(Clone, Debug)]
pub(super) struct Tiers {
    /// Tier of catalogs and large objects: the disk, or memory without a disk.
    pub(super) main: TierOption,
    /// Memory in front of a disk.
    pub(super) memory: Option<TierOption>,
}

/// Error of the combination of tiers.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("a worker has one disk tier, one memory tier, or one of each; give --tier once or twice")]
pub(super) struct TiersError;

impl Tiers {
    pub(super) fn new(options: &[TierOption]) -> Result<Self, TiersError> {
        let of = |medium| options.iter().filter(move |tier| tier.medium == medium);
        let (disks, memories): (Vec<_>, Vec<_>) = (of(Medium::Disk).collect(), of(Medium::Memory).collect());
        match (disks.as_slice(), memories.as_slice()) {
            ([disk], []) => Ok(Self {
                main: (*disk).clone(),
                memory: None,
            }),
            ([], [memory]) => Ok(Self {
                main: (*memory).clone(),
                memory: None,
            }),
            ([disk], [memory]) => Ok(Self {
                main: (*disk).clone(),
                memory: Some((*memory).clone()),
            }),
            _ => Err(TiersError),
        }
    }

    /// Returns a Dataset's directories.
    pub(super) fn directories(&self, uid: &str) -> Vec<PathBuf> {
        self.paths().map(|path| path.join(uid)).collect()
    }

    /// Returns the uids of all Datasets with files in the tiers.
    pub(super) fn present(&self) -> std::io::Result<Vec<String>> {
        let mut uids = std::collections::BTreeSet::new();
        for path in self.paths() {
            for entry in std::fs::read_dir(path)? {
                let entry = entry?;
                let name = entry.file_name().into_string().ok();
                // Other directories (lost+found) are not uids.
                if let Some(name) = name.filter(|name| is_uid(name))
                    && entry.file_type()?.is_dir()
                {
                    uids.insert(name);
                }
            }
        }
        Ok(uids.into_iter().collect())
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        let memory = self.memory.as_ref().map(|tier| tier.path.as_path());
        std::iter::once(self.main.path.as_path()).chain(memory)
    }
}

/// Returns whether a text is a uid as the API server generates them, and so a safe directory name.
pub(super) fn is_uid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_are_parsed() {
        let tier: TierOption = "disk:/mnt/a:b/gpu:1024".parse().unwrap();
        assert_eq!(tier.path, Path::new("/mnt/a:b/gpu"));
        assert_eq!((tier.medium, tier.bytes), (Medium::Disk, 1024));
        for wrong in [
            "disk:mnt:1",
            "tape:/mnt:1",
            "disk:/mnt:",
            "disk:/mnt:0",
            "memory:/mnt",
        ] {
            let error = wrong.parse::<TierOption>().unwrap_err();
            assert!(error.to_string().contains(wrong), "{error}");
        }
    }

    #[test]
    fn memory_is_in_front_of_a_disk_or_alone() {
        let (disk, memory): (TierOption, TierOption) =
            ("disk:/d:1".parse().unwrap(), "memory:/m:1".parse().unwrap());
        let both = Tiers::new(&[disk.clone(), memory.clone()]).unwrap();
        assert_eq!((both.main, both.memory), (disk.clone(), Some(memory.clone())));
        assert_eq!(Tiers::new(std::slice::from_ref(&memory)).unwrap().main, memory);
        assert!(Tiers::new(&[disk.clone(), disk]).is_err());
    }

    #[test]
    fn only_uids_are_names_of_directories() {
        assert!(is_uid("0b7c1ef0-9a51-4c1e-8f5e-7a9d3d1f2b3c"));
        for wrong in [
            "",
            "..",
            "lost+found",
            "0b7c1ef0-9a51-4c1e-8f5e-7a9d3d1f2b3C",
            "0b7c1ef0/9a51-4c1e-8f5e-7a9d3d1f2b3c",
        ] {
            assert!(!is_uid(wrong), "{wrong}");
        }
    }
}
