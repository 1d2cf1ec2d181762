//! Where things lie on the node.
//!
//! Mounts are below the kubelet's plugin directory, which every container of ours shares with the host; what must be
//! found again after a restart is below the host directory, on a disk.

use std::path::{Path, PathBuf};

use millpond_core::CSI_DRIVER;

/// The node's directories.
#[derive(Clone, Debug)]
pub struct Layout {
    kubelet: PathBuf,
    host: PathBuf,
}

impl Layout {
    /// `kubelet` and `host` are absolute and the same for everybody on the node.
    pub fn new(kubelet: impl Into<PathBuf>, host: impl Into<PathBuf>) -> Self {
        Self {
            kubelet: kubelet.into(),
            host: host.into(),
        }
    }

    /// The kubelet's directory.
    pub fn kubelet(&self) -> &Path {
        &self.kubelet
    }

    /// What is this driver's below the kubelet's directory.
    pub fn plugin(&self) -> PathBuf {
        self.kubelet.join("plugins").join(CSI_DRIVER)
    }

    /// The socket of the CSI services.
    pub fn csi_socket(&self) -> PathBuf {
        self.plugin().join("csi.sock")
    }

    /// The socket by which the kubelet finds the driver.
    pub fn registration_socket(&self) -> PathBuf {
        self.kubelet
            .join("plugins_registry")
            // The kubelet names the socket's path, percent-encoded, as the authority of its requests. An authority has a
            // percent sign only before an `@`, which is not encoded: without it the request is malformed.
            .join(format!("{CSI_DRIVER}@reg.sock"))
    }

    /// The mounts of all Datasets.
    pub(crate) fn datasets(&self) -> PathBuf {
        self.plugin().join("datasets")
    }

    /// The mounts of one Dataset. `uid` is a plain file name.
    pub(crate) fn dataset(&self, uid: &str) -> PathBuf {
        self.datasets().join(uid)
    }

    /// The Dataset's FUSE mount.
    pub(crate) fn fuse(&self, uid: &str) -> PathBuf {
        self.dataset(uid).join("fuse")
    }

    /// Where the image of a generation is mounted.
    pub(crate) fn image_mount(&self, uid: &str, generation: u64) -> PathBuf {
        self.dataset(uid).join(format!("gen-{generation}"))
    }

    /// What is this driver's on the node's disk.
    pub fn driver(&self) -> PathBuf {
        self.host.join("driver")
    }

    /// Held by the one driver that serves.
    pub fn lock(&self) -> PathBuf {
        self.driver().join("lock")
    }

    pub(crate) fn plan(&self) -> PathBuf {
        self.driver().join("plan")
    }

    pub(crate) fn volumes(&self) -> PathBuf {
        self.driver().join("volumes")
    }

    pub(crate) fn catalogs(&self) -> PathBuf {
        self.driver().join("catalogs")
    }

    /// The copies of one Dataset's catalogs.
    pub(crate) fn catalogs_of(&self, uid: &str) -> PathBuf {
        self.catalogs().join(uid)
    }

    /// Which tiers were prepared, so that they can be taken away again.
    pub(crate) fn prepared(&self) -> PathBuf {
        self.driver().join("pools")
    }

    /// The directory of a pool's worker and its socket.
    pub fn worker(&self, pool: &str) -> PathBuf {
        self.host.join("workers").join(pool)
    }

    /// Where the tmpfs of a pool's memory tier is mounted.
    pub(crate) fn memory_mount(&self, pool: &str) -> PathBuf {
        self.host.join("memory").join(pool)
    }

    /// A pool's memory tier: a directory in its tmpfs, so that it is not there while nothing is mounted, as after a reboot. A worker
    /// that began on the directory below the mount would fill the disk, where no view looks.
    pub fn memory(&self, pool: &str) -> PathBuf {
        self.memory_mount(pool).join("tier")
    }
}
