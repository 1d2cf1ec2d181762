//! Paths of the driver on the node.
//!
//! Mounts are below the kubelet's plugin directory, which all containers of Millpond share with the host; state that must
//! survive a restart is below the host directory, on a disk.

use std::path::{Path, PathBuf};

use millpond_core::CSI_DRIVER;

/// Directories on the node.
#[derive(Clone, Debug)]
pub struct Layout {
    kubelet: PathBuf,
    host: PathBuf,
}

impl Layout {
    /// Creates the layout. `kubelet` and `host` are absolute, and the same paths in all containers and on the host.
    pub fn new(kubelet: impl Into<PathBuf>, host: impl Into<PathBuf>) -> Self {
        Self {
            kubelet: kubelet.into(),
            host: host.into(),
        }
    }

    /// Returns the kubelet's directory.
    pub fn kubelet(&self) -> &Path {
        &self.kubelet
    }

    /// Returns this driver's directory below the kubelet's.
    pub fn plugin(&self) -> PathBuf {
        self.kubelet.join("plugins").join(CSI_DRIVER)
    }

    /// Returns the socket of the CSI services.
    pub fn csi_socket(&self) -> PathBuf {
        self.plugin().join("csi.sock")
    }

    /// Returns the socket by which the kubelet finds the driver.
    pub fn registration_socket(&self) -> PathBuf {
        self.kubelet
            .join("plugins_registry")
            // The kubelet names the socket's path, percent-encoded, as the authority of its requests. An authority has a
            // percent sign only before an `@`, which is not encoded: without it the request is malformed.
            .join(format!("{CSI_DRIVER}@reg.sock"))
    }

    /// Returns the directory of the mounts of all Datasets.
    pub(crate) fn datasets(&self) -> PathBuf {
        self.plugin().join("datasets")
    }

    /// Returns the directory of the mounts of one Dataset. `uid` is a plain file name.
    pub(crate) fn dataset(&self, uid: &str) -> PathBuf {
        self.datasets().join(uid)
    }

    /// Returns the mount point of the Dataset's FUSE mount.
    pub(crate) fn fuse(&self, uid: &str) -> PathBuf {
        self.dataset(uid).join("fuse")
    }

    /// Returns the mount point of a generation's image.
    pub(crate) fn image_mount(&self, uid: &str, generation: u64) -> PathBuf {
        self.dataset(uid).join(format!("gen-{generation}"))
    }

    /// Returns this driver's directory on the node's disk.
    pub fn driver(&self) -> PathBuf {
        self.host.join("driver")
    }

    /// Returns the lock file of the driver that serves.
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

    /// Returns the directory of the copies of one Dataset's catalogs.
    pub(crate) fn catalogs_of(&self, uid: &str) -> PathBuf {
        self.catalogs().join(uid)
    }

    /// Returns the file that lists the prepared tiers, so that they can be removed later.
    pub(crate) fn prepared(&self) -> PathBuf {
        self.driver().join("pools")
    }

    /// Returns the directory of a pool's worker and its socket.
    pub fn worker(&self, pool: &str) -> PathBuf {
        self.host.join("workers").join(pool)
    }

    /// Returns the mount point of the tmpfs of a pool's memory tier.
    pub(crate) fn memory_mount(&self, pool: &str) -> PathBuf {
        self.host.join("memory").join(pool)
    }

    /// Returns a pool's memory tier: a directory in its tmpfs, so that it does not exist while the tmpfs is not mounted, as
    /// after a reboot. A worker that used the directory below the mount would fill the disk, and views would not see it.
    pub fn memory(&self, pool: &str) -> PathBuf {
        self.memory_mount(pool).join("tier")
    }
}
