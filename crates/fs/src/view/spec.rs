//! What a kernel view is made of: its layers in their order, and the overlay options that this kernel allows.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use millpond_core::{CatalogFile, TierDirectories};

/// How many bytes of a view's name go into its mount's source; the kernel takes 255 bytes in all.
const NAME_LIMIT_BYTES: usize = 200;

/// Everything that tells one kernel view from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewSpec {
    /// Shown in the table of mounts as `millpond:NAME:GENERATION`.
    pub name: String,
    /// The generation that the view shows.
    pub catalog: CatalogFile,
    /// Where that generation's image is mounted; shared by all views of it.
    pub catalog_mount: PathBuf,
    /// The worker's directories, fastest tier first.
    pub tiers: Vec<TierDirectories>,
    /// The root of the Dataset's FUSE mount.
    pub fuse_root: PathBuf,
    /// Where the view is shown: an absolute path without symbolic links, a directory that exists.
    pub target: PathBuf,
    /// Whether opens that the kernel serves alone are counted. An evicting Dataset cannot do without.
    pub count_opens: bool,
    /// The SELinux context of all its files; `None`: what the kernel gives them.
    pub context: Option<String>,
}

impl ViewSpec {
    /// The directories of objects in the order in which the kernel looks an object up.
    ///
    /// The FUSE mount comes twice: before the landing directories it may fetch an object into one of them and say
    /// "no such entry"; behind them it says what is true, because the last layer's answer is what a reader gets.
    pub fn data_layers(&self) -> Vec<PathBuf> {
        let mut layers: Vec<_> = self.tiers.iter().map(|tier| tier.objects.clone()).collect();
        layers.push(self.fuse_root.join("objects"));
        layers.extend(self.tiers.iter().map(|tier| tier.landing.clone()));
        layers.push(self.fuse_root.join("last"));
        layers
    }

    /// What the table of mounts shows as the view's source.
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

/// Which overlay options a view has: what the kernel allows decides, see [`super::KernelSupport`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlayMode {
    /// Exportable, so that fanotify names files by handle: an event is 80 bytes and holds nothing.
    Handles,
    /// Not exportable: fanotify opens a descriptor for each event, which costs more and holds the file for a moment.
    Descriptors,
}

impl OverlayMode {
    /// The options beyond the layers.
    pub(crate) const fn options(self) -> &'static [(&'static str, &'static str)] {
        match self {
            // A view without an upper layer is exportable only where no redirect is followed in the metadata layer;
            // redirects into the data layers are followed all the same (measured on 6.18, tried before use). Without a
            // uuid of its own the overlay has the identity of its layer, which fanotify asks for.
            Self::Handles => &[
                ("nfs_export", "on"),
                ("redirect_dir", "nofollow"),
                ("uuid", "null"),
            ],
            Self::Descriptors => &[("metacopy", "on"), ("redirect_dir", "follow")],
        }
    }
}
