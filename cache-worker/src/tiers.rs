//! The tiers of a worker, as its command line names them, and what a Dataset has of them.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use millpond_cache::Medium;

/// One tier: `memory:PATH:BYTES` or `disk:PATH:BYTES`.
///
/// The path comes last of what can hold a colon, so it is read from both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierOption {
    /// What it is made of.
    pub medium: Medium,
    /// This pool's directory in it.
    pub path: PathBuf,
    /// How many bytes it may hold.
    pub bytes: u64,
}

/// Why a tier is none.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is no tier: write memory:PATH:BYTES or disk:PATH:BYTES")]
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
    /// Where catalogs and large objects are: the disk, or memory where there is no disk.
    pub(super) main: TierOption,
    /// Memory before a disk.
    pub(super) memory: Option<TierOption>,
}

/// Why the tiers cannot be used together.
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

    /// A Dataset's directories, by its uid.
    pub(super) fn directories(&self, uid: &str) -> Vec<PathBuf> {
        self.paths().map(|path| path.join(uid)).collect()
    }

    /// The uids of all Datasets that have something here.
    pub(super) fn present(&self) -> std::io::Result<Vec<String>> {
        let mut uids = std::collections::BTreeSet::new();
        for path in self.paths() {
            for entry in std::fs::read_dir(path)? {
                let entry = entry?;
                let name = entry.file_name().into_string().ok();
                // What is not ours (lost+found) has no uid's form.
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

/// Whether a text is a uid as the API server makes them, and so can be the name of a directory.
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
    fn tiers_are_read_from_their_words() {
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
    fn memory_goes_before_a_disk_and_stands_alone_without() {
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
