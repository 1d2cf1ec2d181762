//! Options of a mount: written by `millpond mount`, read by its supervisor and its servers.
//!
//! The file may hold credentials that were given as options: it lies in a directory that only its owner can enter.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use millpond_cache::source::SourceOptions;
use serde::{Deserialize, Serialize};

/// Version of the file, raised when another version's server could misread it.
pub(crate) const SPEC_VERSION: u32 = 1;

/// Options of a mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spec {
    pub(crate) version: u32,
    pub(crate) source: SourceOptions,
    /// Mount directory: absolute, without symbolic links.
    pub(crate) directory: PathBuf,
    pub(crate) cache: Cache,
    /// Interval between listings; `None`: only at start and on request.
    pub(crate) refresh: Option<Duration>,
    /// Whether the source is listed before the mount is usable.
    pub(crate) fresh: bool,
    /// Longest time that a read waits for the source.
    pub(crate) deadline: Duration,
    /// Whether slow requests are hedged.
    pub(crate) hedging: bool,
    pub(crate) view: ViewChoice,
    pub(crate) owner: Owner,
    /// Address of the metrics; `None`: not served.
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) count_opens: bool,
    /// Most bytes of all read buffers; `None`: a quarter of the memory limit.
    pub(crate) memory_budget_bytes: Option<u64>,
}

/// The cache of a mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cache {
    pub(crate) directory: PathBuf,
    /// Most bytes on disk; `None`: the free space of the file system.
    pub(crate) disk_bytes: Option<u64>,
    /// Most bytes in memory; 0: no memory tier.
    pub(crate) memory_bytes: u64,
    pub(crate) eviction: Eviction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Eviction {
    Never,
    Lru,
    TinyLfu,
}

/// Requested kind of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ViewChoice {
    /// The kernel view if it is possible, else the FUSE view.
    Auto,
    Kernel,
    Fuse,
}

/// Kind of a mounted view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ViewKind {
    Kernel,
    Fuse,
}

impl ViewKind {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Kernel => "kernel view",
            Self::Fuse => "FUSE view",
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) file_mode: u16,
    pub(crate) dir_mode: u16,
}

impl Spec {
    /// Writes the file, readable only by its owner.
    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).context("failed to encode the mount's options")?;
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(file)
            .and_then(|mut file| file.write_all(&text))
            .with_context(|| format!("failed to write {}", file.display()))
    }

    /// Reads the file.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read(file).with_context(|| format!("failed to read {}", file.display()))?;
        let version: Version = serde_json::from_slice(&text)
            .with_context(|| format!("{} does not describe a mount", file.display()))?;
        if version.version != SPEC_VERSION {
            bail!(
                "{} is of version {}, this program supports version {SPEC_VERSION}",
                file.display(),
                version.version
            );
        }
        serde_json::from_slice(&text).with_context(|| format!("{} does not describe a mount", file.display()))
    }
}

/// Parsed first, so that another version is reported as such and not as unknown fields.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn spec(directory: &Path) -> Spec {
        Spec {
            version: SPEC_VERSION,
            source: SourceOptions {
                url: "s3://bucket/prefix".to_owned(),
                ..SourceOptions::default()
            },
            directory: directory.to_owned(),
            cache: Cache {
                directory: PathBuf::from("/var/cache/millpond/x"),
                disk_bytes: Some(1 << 30),
                memory_bytes: 0,
                eviction: Eviction::Lru,
            },
            refresh: Some(Duration::from_secs(600)),
            fresh: false,
            deadline: Duration::from_secs(30),
            hedging: true,
            view: ViewChoice::Auto,
            owner: Owner {
                uid: 0,
                gid: 0,
                file_mode: 0o444,
                dir_mode: 0o555,
            },
            metrics: None,
            count_opens: true,
            memory_budget_bytes: None,
        }
    }

    #[test]
    fn what_is_written_is_read_and_private() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("spec.json");
        let written = spec(Path::new("/data"));
        written.write(&file).unwrap();
        let read = Spec::read(&file).unwrap();
        assert_eq!(
            serde_json::to_value(&read).unwrap(),
            serde_json::to_value(&written).unwrap()
        );
        assert_eq!(
            std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn another_version_is_refused_by_its_number() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("spec.json");
        std::fs::write(&file, r#"{"version": 99, "new_field": true}"#).unwrap();
        let error = format!("{:#}", Spec::read(&file).unwrap_err());
        assert!(error.contains("version 99"), "{error}");
    }

    #[test]
    fn a_torn_file_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("spec.json");
        std::fs::write(&file, r#"{"version": 1, "sou"#).unwrap();
        assert!(Spec::read(&file).is_err());
    }
}
