//! The kernel view: one read-only overlay mount of a catalog image over directories of objects.
//!
//! Names and attributes come from the catalog's layer; a file's content from the first data layer that has its object.
//! Once the kernel has resolved an inode it stays with that layer, and with the object's inode there, until it drops the
//! overlay's inode: [`KernelView::remount`] makes it drop all unused ones.

use std::path::Path;

use super::error::ViewError;
use super::spec::{OverlayMode, ViewSpec};
use crate::mount::{self, Anchor, Mount, MountTable, Overlay, PathValue};
use crate::mounter::Mounter;

/// How to unmount a view that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InUse {
    /// Not at all: [`ViewError::Busy`].
    Refuse,
    /// From the tree; processes that use it keep it.
    Detach,
}

/// A mounted kernel view. Dropping it leaves the mount as it is: views outlive their driver.
#[derive(Debug)]
pub struct KernelView {
    spec: ViewSpec,
    mode: OverlayMode,
    anchor: Anchor,
    device: u64,
}

impl KernelView {
    /// Mounts the view by `mounter`, since its layers are in a FUSE mount that this process may serve. Its catalog
    /// image must be mounted at [`ViewSpec::catalog_mount`] until this returns.
    ///
    /// # Errors
    /// [`ViewError::Occupied`] where something is mounted at the target; else the kernel's error.
    pub fn mount(spec: ViewSpec, mode: OverlayMode, mounter: &Mounter) -> Result<Self, ViewError> {
        if let Some(found) = mounted_at(&spec.target)? {
            return Err(ViewError::Occupied {
                target: spec.target,
                found: found.source,
            });
        }
        mounter.overlay(overlay(&spec, mode))?.attach(&spec.target)?;
        Self::anchored(spec, mode)
    }

    /// Takes over the view that a predecessor mounted, or `None` where nothing is mounted at the target.
    ///
    /// # Errors
    /// [`ViewError::Occupied`] where the mount there is another one, or this one with other layers or options.
    pub fn adopt(spec: ViewSpec) -> Result<Option<Self>, ViewError> {
        let Some(found) = mounted_at(&spec.target)? else {
            return Ok(None);
        };
        let mode = [OverlayMode::Handles, OverlayMode::Descriptors]
            .into_iter()
            .find(|mode| is_view(&found, &spec, *mode));
        match mode {
            Some(mode) => Self::anchored(spec, mode).map(Some),
            None => Err(ViewError::Occupied {
                target: spec.target,
                found: found.source,
            }),
        }
    }

    fn anchored(spec: ViewSpec, mode: OverlayMode) -> Result<Self, ViewError> {
        let anchor = Anchor::of(&spec.target)?;
        let device = anchor.device()?;
        Ok(Self {
            spec,
            mode,
            anchor,
            device,
        })
    }

    /// The spec of the view.
    pub fn spec(&self) -> &ViewSpec {
        &self.spec
    }

    /// How events of the view name its files.
    pub fn mode(&self) -> OverlayMode {
        self.mode
    }

    /// Makes the kernel drop every unused name and inode of the view: space of unlinked objects is freed, and each file is
    /// looked up through all layers again. 20 ms for thousands of names.
    ///
    /// # Errors
    /// The kernel's error; nothing was dropped then.
    pub fn remount(&self) -> Result<(), ViewError> {
        Ok(self.anchor.remount()?)
    }

    /// Returns whether the view is still the topmost mount of its target.
    ///
    /// # Errors
    /// Where the table of mounts cannot be read.
    pub fn is_mounted(&self) -> Result<bool, ViewError> {
        Ok(mounted_at(&self.spec.target)?.is_some_and(|found| found.device == self.device))
    }

    /// Unmounts the view. One that is unmounted already is a success.
    ///
    /// # Errors
    /// [`ViewError::Busy`] where it is in use and must not be detached; [`ViewError::Occupied`] where another mount
    /// lies on top of it.
    pub fn unmount(&self, in_use: InUse) -> Result<(), ViewError> {
        let target = &self.spec.target;
        match mounted_at(target)? {
            Some(found) if found.device == self.device => {}
            Some(found) if self.is_below(target)? => {
                return Err(ViewError::Occupied {
                    target: target.clone(),
                    found: found.source,
                });
            }
            _ => return Ok(()),
        }
        match (mount::unmount(target), in_use) {
            (Ok(()), _) => Ok(()),
            (Err(error), InUse::Refuse) if error.raw_os_error() == Some(libc::EBUSY) => {
                Err(ViewError::Busy {
                    target: target.clone(),
                })
            }
            (Err(error), InUse::Detach) if error.raw_os_error() == Some(libc::EBUSY) => {
                mount::detach(target)?;
                Ok(())
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    /// Returns whether the view is mounted at its target below another mount.
    fn is_below(&self, target: &Path) -> Result<bool, ViewError> {
        let table = read_table()?;
        let is_below = table
            .iter()
            .any(|mount| mount.point == target && mount.device == self.device);
        Ok(is_below)
    }

    pub(crate) fn anchor(&self) -> &Anchor {
        &self.anchor
    }
}

/// The overlay of a view, for the mounter.
fn overlay(spec: &ViewSpec, mode: OverlayMode) -> Overlay {
    let mut options = vec![("source".to_owned(), spec.source())];
    for (key, value) in mode.options() {
        options.push(((*key).to_owned(), value.into()));
    }
    if let Some(label) = &spec.context {
        options.push(("context".to_owned(), label.into()));
    }
    Overlay {
        subject: spec.target.clone().into(),
        options,
        metadata: spec.metadata_layer().into(),
        data: spec.data_layers().into_iter().map(Into::into).collect(),
    }
}

fn read_table() -> Result<MountTable, ViewError> {
    MountTable::read().map_err(ViewError::system("read the table of mounts"))
}

pub(crate) fn mounted_at(target: &Path) -> Result<Option<Mount>, ViewError> {
    Ok(read_table()?.top_at(target).cloned())
}

/// Returns whether `found` is the mount of `spec`.
fn is_view(found: &Mount, spec: &ViewSpec, mode: OverlayMode) -> bool {
    let same = |listed: Vec<&std::ffi::OsStr>, layers: &[std::path::PathBuf]| {
        listed.len() == layers.len()
            && listed
                .iter()
                .zip(layers)
                .all(|(listed, layer)| is_layer(listed, layer))
    };
    // The table omits the kernel's defaults, so only the mode's first option is certain to be there.
    let Some((key, value)) = mode.options().first() else {
        return false;
    };
    found.file_system == "overlay"
        && found.source == spec.source()
        && found.values(key).any(|listed| listed == *value)
        && same(
            found.values("lowerdir+").collect(),
            &[spec.metadata_layer().to_owned()],
        )
        && same(found.values("datadir+").collect(), &spec.data_layers())
}

/// Returns whether `listed` in the table is `layer`, or the link that was used for a path too long for an option.
fn is_layer(listed: &std::ffi::OsStr, layer: &Path) -> bool {
    listed == layer.as_os_str()
        || (PathValue::is_too_long(layer) && Path::new(listed).starts_with("/proc/self/fd"))
}
