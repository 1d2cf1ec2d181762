//! A catalog image as a mounted file system.
//!
//! Kernels from 6.12 on mount the image file itself; others mount a loop device of it. An overlay references
//! its layers by private clones of their mounts, so the mount at the path is only needed while overlays of it are
//! mounted: it may be detached below them at any time.

use std::fs;
use std::path::{Path, PathBuf};

use super::context::{Context, DetachedMount, PathValue};
use super::error::{MountError, Result};
use super::io::LoopDevice;
use super::table::MountTable;
use super::unmount::detach;

/// The block source of a mounted image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageBacking {
    /// The file itself.
    File,
    /// A loop device of the file.
    Loop,
}

/// A catalog image that is mounted at a path. Dropping it leaves the mount.
#[derive(Debug)]
pub struct ImageMount {
    point: PathBuf,
}

impl ImageMount {
    /// Mounts `image` at `point`, or takes over an existing mount of it. Creates the directory if absent.
    ///
    /// # Errors
    /// EBUSY where a file system of another type is mounted at `point`.
    pub fn take(image: &Path, point: &Path) -> Result<Self> {
        let failed = |error| MountError::new("prepare a mount at", point, error);
        let table = MountTable::read().map_err(failed)?;
        match table.top_at(point) {
            Some(found) if found.file_system != "erofs" => {
                return Err(MountError::new(
                    "mount an image at",
                    point,
                    rustix::io::Errno::BUSY,
                ));
            }
            Some(found) if found.source == image.as_os_str() => {
                return Ok(Self {
                    point: point.to_owned(),
                });
            }
            // Another image, or one behind a loop device: overlays of it keep it.
            Some(_) => detach(point)?,
            None => fs::create_dir_all(point).map_err(failed)?,
        }
        mount_image(image, point)?;
        Ok(Self {
            point: point.to_owned(),
        })
    }

    /// Where the image is mounted.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// Detaches the mount, and removes the directory if it is empty. Overlays of the image keep it.
    ///
    /// # Errors
    /// EINVAL where it is unmounted already.
    pub fn detach(&self) -> Result<()> {
        detach(&self.point)?;
        // It was created for the mount alone; a directory that cannot be removed does no harm.
        let _kept = fs::remove_dir(&self.point);
        Ok(())
    }
}

/// Mounts `image` at `point` in the way that this kernel supports.
fn mount_image(image: &Path, point: &Path) -> Result<()> {
    let mount = match detached_image(image, ImageBacking::File) {
        Ok(mount) => mount,
        // ENOTBLK from kernels that mount no files, others from file systems whose files cannot be mounted (tmpfs).
        // An invalid image fails behind a loop device too: the first error describes it best.
        Err(error) => detached_image(image, ImageBacking::Loop).map_err(|_second| error)?,
    };
    mount.attach(point)
}

/// Mounts `image`, attached nowhere yet.
pub(crate) fn detached_image(image: &Path, backing: ImageBacking) -> Result<DetachedMount> {
    let context = Context::open("erofs", image)?;
    match backing {
        ImageBacking::File => {
            let source = PathValue::of(image)?;
            context.text("source", source.text())?;
            context.create()
        }
        ImageBacking::Loop => {
            let device = LoopDevice::of(image)?;
            context.text("source", device.path().as_os_str())?;
            context.create()
        }
    }
}
