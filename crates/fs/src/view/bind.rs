//! The FUSE view: a tree of the Dataset's FUSE mount, mounted at another path.

use std::path::{Path, PathBuf};

use super::error::ViewError;
use super::kernel::{InUse, mounted_at};
use crate::mount;
use crate::mounter::Mounter;

/// A tree of the FUSE mount and the target of its view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindSpec {
    /// `gen-N` or `live` in the root of the Dataset's FUSE mount.
    pub tree: PathBuf,
    /// The mountpoint: an absolute path without symbolic links, a directory that exists.
    pub target: PathBuf,
}

/// A mounted FUSE view. Dropping it leaves the mount as it is.
#[derive(Debug)]
pub struct BindView {
    spec: BindSpec,
}

impl BindView {
    /// Mounts the tree at the target, read-only, without devices and set-user-id programs. `mounter` clones it, since this
    /// process may serve it.
    ///
    /// # Errors
    /// [`ViewError::Occupied`] where something is mounted at the target; else the kernel's error.
    pub fn mount(spec: BindSpec, mounter: &Mounter) -> Result<Self, ViewError> {
        if let Some(found) = mounted_at(&spec.target)? {
            return Err(ViewError::Occupied {
                target: spec.target,
                found: found.source,
            });
        }
        mount::show_tree(mounter.tree(&spec.tree)?, &spec.target)?;
        Ok(Self { spec })
    }

    /// Takes over the view that a predecessor mounted, or `None` where nothing is mounted at the target.
    ///
    /// `fuse_root` is the mountpoint of the Dataset's FUSE mount.
    ///
    /// # Errors
    /// [`ViewError::Occupied`] where the mount there is not of this tree.
    pub fn adopt(spec: BindSpec, fuse_root: &Path) -> Result<Option<Self>, ViewError> {
        let Some(found) = mounted_at(&spec.target)? else {
            return Ok(None);
        };
        let root = mounted_at(fuse_root)?.map(|root| root.device);
        let tree = spec
            .tree
            .strip_prefix(fuse_root)
            .map(|tree| Path::new("/").join(tree));
        if Some(found.device) != root || tree.ok() != Some(found.root) {
            return Err(ViewError::Occupied {
                target: spec.target,
                found: found.source,
            });
        }
        Ok(Some(Self { spec }))
    }

    /// The spec of the view.
    pub fn spec(&self) -> &BindSpec {
        &self.spec
    }

    /// Unmounts the view. One that is unmounted already is a success.
    ///
    /// # Errors
    /// [`ViewError::Busy`] where it is in use and should not be detached.
    pub fn unmount(&self, in_use: InUse) -> Result<(), ViewError> {
        let target = &self.spec.target;
        if mounted_at(target)?.is_none() {
            return Ok(());
        }
        match (mount::unmount(target), in_use) {
            (Ok(()), _) => Ok(()),
            (Err(error), InUse::Refuse) if error.raw_os_error() == Some(libc::EBUSY) => {
                Err(ViewError::Busy {
                    target: target.clone(),
                })
            }
            (Err(error), InUse::Detach) if error.raw_os_error() == Some(libc::EBUSY) => {
                Ok(mount::detach(target)?)
            }
            (Err(error), _) => Err(error.into()),
        }
    }
}
