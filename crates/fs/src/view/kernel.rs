//! The kernel view: one read-only overlay mount of a catalog image over directories of objects.
//!
//! Names and attributes come from the catalog's layer; a file's content from the first data layer that has its object.
//! Once the kernel has resolved an inode it keeps to that layer, and to the object's inode there, until it forgets the
//! overlay's inode: [`KernelView::remount`] makes it forget all that nobody uses.

use std::path::Path;

use super::error::ViewError;
use super::spec::{OverlayMode, ViewSpec};
use crate::mount::{self, Anchor, Mount, MountTable, Overlay, PathValue};
use crate::mounter::Mounter;

/// What to do about a view that somebody still uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InUse {
    /// Leave it mounted and say so.
    Refuse,
    /// Take it out of the tree; it lives on for those who use it.
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
    /// Mounts the view, made by `mounter`, since its layers are in a FUSE mount that this process may serve. Its catalog
    /// image must be mounted at [`ViewSpec::catalog_mount`] until this returns.
    ///
    /// # Errors
    /// [`ViewError::RecoveredMount`] where something is mounted at the target; else what the kernel refused.
    pub fn mount(spec: ViewSpec, mode: OverlayMode, mounter: &Mounter) -> Result<Self, ViewError> {
        if let Some(found) = mounted_at(&spec.target)? {
            return Err(ViewError::Taken {
                target: spec.target,
                found: found.source,
            });
        }
        mounter.overlay(overlay(&spec, mode))?.attach(&spec.target)?;
        Self::hold(spec, mode)
    }

    /// Takes over the view that a predecessor mounted, or `None` where nothing is mounted at the target.
    ///
    /// # Errors
    /// [`ViewError::RecoveredMount`] where the mount there is another one, or this one with other layers or options.
    pub fn adopt(spec: ViewSpec) -> Result<Option<Self>, ViewError> {
        let Some(found) = mounted_at(&spec.target)? else {
            return Ok(None);
        };
        let mode = [OverlayMode::Handles, OverlayMode::Descriptors]
            .into_iter()
            .find(|mode| is_view(&found, &spec, *mode));
        match mode {
            Some(mode) => Self::hold(spec, mode).map(Some),
            None => Err(ViewError::Taken {
                target: spec.target,
                found: found.source,
            }),
        }
    }

    fn hold(spec: ViewSpec, mode: OverlayMode) -> Result<Self, ViewError> {
        let anchor = Anchor::of(&spec.target)?;
        let device = anchor.device()?;
        Ok(Self {
            spec,
            mode,
            anchor,
            device,
        })
    }

    /// What the view was made from.
    pub fn spec(&self) -> &ViewSpec {
        &self.spec
    }

    /// How events of the view name its files.
    pub fn mode(&self) -> OverlayMode {
        self.mode
    }

    /// Makes the kernel forget every name and inode of the view that nobody uses: space of unlinked objects comes
    /// back, and each file is looked up through all layers again. 20 ms for thousands of names.
    ///
    /// # Errors
    /// What the kernel refused; nothing was forgotten then.
    pub fn remount(&self) -> Result<(), ViewError> {
        Ok(self.anchor.remount()?)
    }

    /// Whether the view is still what its target shows.
    ///
    /// # Errors
    /// Where the table of mounts cannot be read.
    pub fn is_mounted(&self) -> Result<bool, ViewError> {
        Ok(mounted_at(&self.spec.target)?.is_some_and(|found| found.device == self.device))
    }

    /// Unmounts the view. One that is gone already is a success.
    ///
    /// # Errors
    /// [`ViewError::Busy`] where it is in use and should not be detached; [`ViewError::RecoveredMount`] where another mount
    /// lies on top of it.
    pub fn unmount(&self, in_use: InUse) -> Result<(), ViewError> {
        let target = &self.spec.target;
        match mounted_at(target)? {
            Some(found) if found.device == self.device => {}
            Some(found) if self.is_below(target)? => {
                return Err(ViewError::Taken {
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

    /// Whether the view is mounted at its target with something else on top.
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

/// What the mounter is asked for.
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

/// Whether `found` is the mount that `spec` would make.
fn is_view(found: &Mount, spec: &ViewSpec, mode: OverlayMode) -> bool {
    let same = |shown: Vec<&std::ffi::OsStr>, layers: &[std::path::PathBuf]| {
        shown.len() == layers.len()
            && shown
                .iter()
                .zip(layers)
                .all(|(shown, layer)| is_layer(shown, layer))
    };
    // The kernel leaves out of the table what is its default, so only the mode's first option is sure to be there.
    let Some((key, value)) = mode.options().first() else {
        return false;
    };
    found.file_system == "overlay"
        && found.source == spec.source()
        && found.values(key).any(|shown| shown == *value)
        && same(
            found.values("lowerdir+").collect(),
            &[spec.metadata_layer().to_owned()],
        )
        && same(found.values("datadir+").collect(), &spec.data_layers())
}

/// Whether the table shows `layer` as `shown`; of a path too long for an option it shows the link that was used.
fn is_layer(shown: &std::ffi::OsStr, layer: &Path) -> bool {
    shown == layer.as_os_str()
        || (PathValue::is_too_long(layer) && Path::new(shown).starts_with("/proc/self/fd"))
}
