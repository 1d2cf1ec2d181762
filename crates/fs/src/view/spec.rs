//! The layers of a kernel view in their order, and the overlay options that this kernel supports.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use millpond_core::{CatalogFile, TierDirectories};

/// The most bytes of a view's name in its mount's source; the kernel stores 255 bytes in all.
const NAME_LIMIT_BYTES: usize = 200;

/// The identity of a kernel view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewSpec {
    /// In the table of mounts as `millpond:NAME:GENERATION`.
    pub name: String,
    /// The catalog of the view's generation.
    pub catalog: CatalogFile,
    /// The mountpoint of that generation's image, shared by all views of it.
    pub catalog_mount: PathBuf,
    /// The worker's directories, fastest tier first.
    pub tiers: Vec<TierDirectories>,
    /// The root of the Dataset's FUSE mount.
    pub fuse_root: PathBuf,
    /// The mountpoint: an absolute path without symbolic links, a directory that exists.
    pub target: PathBuf,
    /// Whether opens that the kernel serves alone are counted. An evicting Dataset needs that.
    pub count_opens: bool,
    /// The SELinux context of all its files; `None`: the kernel's default.
    pub context: Option<String>,
}

impl ViewSpec {
    /// The directories of objects, in the kernel's lookup order.
    ///
    /// The FUSE mount is in it twice: before the landing directories it may fetch an object into one of them and return
    /// "no such entry"; behind them it returns the object or its true error, because a reader gets the last layer's result.
    pub fn data_layers(&self) -> Vec<PathBuf> {
        let mut layers: Vec<_> = self.tiers.iter().map(|tier| tier.objects.clone()).collect();
        layers.push(self.fuse_root.join("objects"));
        layers.extend(self.tiers.iter().map(|tier| tier.landing.clone()));
        layers.push(self.fuse_root.join("last"));
        layers
    }

    /// The view's source in the table of mounts.
    pub fn source(&self) -> OsString {
        let mut end = self.name.len().min(NAME_LIMIT_BYTES);
        while !self.name.is_char_boundary(end) {
            end -= 1;
        }
        let name = self.name.get(..end).unwrap_or_default();
        format!("millpond:{name}:{}", self.catalog.generation).into()
    }

    pub(crate) fn metadata_layer(&self) -> &Path {
        &self.catalog_mount
    }
}

/// The overlay options of a view, by what the kernel supports: see [`super::KernelSupport`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlayMode {
    /// Exportable, so that fanotify names files by handle: an event is 80 bytes and references nothing.
    Handles,
    /// Not exportable: fanotify opens a descriptor for each event, which costs more and references the file until it is read.
    Descriptors,
}

impl OverlayMode {
    /// The options beyond the layers.
    pub(crate) const fn options(self) -> &'static [(&'static str, &'static str)] {
        match self {
            // A view without an upper layer is exportable only where no redirect is followed in the metadata layer;
            // redirects into the data layers are followed all the same (measured on 6.18, tried before use). Without a
            // uuid of its own the overlay has the identity of its layer, which fanotify needs.
            Self::Handles => &[
                ("nfs_export", "on"),
                ("redirect_dir", "nofollow"),
                ("uuid", "null"),
            ],
            Self::Descriptors => &[("metacopy", "on"), ("redirect_dir", "follow")],
        }
    }
}
