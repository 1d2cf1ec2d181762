//! A catalog image as a mounted file system.
//!
//! Kernels from 6.12 on mount the image file itself; where one cannot, a loop device lies between. An overlay keeps
//! its layers by private clones of their mounts, so the mount at the path is only needed while overlays of it are
//! made: it may be detached under them at any time.

use std::fs;
use std::path::{Path, PathBuf};

use super::context::{Context, DetachedMount, PathValue};
use super::error::{MountError, Result};
use super::io::LoopDevice;
use super::table::MountTable;
use super::unmount::detach;

/// How the kernel reads an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageBacking {
    /// The kernel reads the file.
    File,
    /// The kernel reads a loop device, which reads the file.
    Loop,
}

/// A catalog image that is mounted at a path. Dropping it leaves the mount.
#[derive(Debug)]
pub struct ImageMount {
    point: PathBuf,
}

impl ImageMount {
    /// Mounts `image` at `point`, or takes over the mount of it that is there. Makes the directory if need be.
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
            // Another image, or one behind a loop device: what is made of it keeps it.
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

    /// Takes the mount away, and the directory if it is empty. Overlays that were made of it keep the image.
    ///
    /// # Errors
    /// EINVAL where it is gone already.
    pub fn detach(&self) -> Result<()> {
        detach(&self.point)?;
        // It was made for the mount only; where it cannot be removed it is in nobody's way.
        let _kept = fs::remove_dir(&self.point);
        Ok(())
    }
}

/// Mounts `image` at `point` by whatever way this kernel has.
fn mount_image(image: &Path, point: &Path) -> Result<()> {
    let mount = match detached_image(image, ImageBacking::File) {
        Ok(mount) => mount,
        // ENOTBLK from kernels that mount no files, others from file systems whose files cannot be mounted (tmpfs).
        // What is wrong with the image itself is wrong behind a loop device too: the first error says it best.
        Err(error) => detached_image(image, ImageBacking::Loop).map_err(|_second| error)?,
    };
    mount.attach(point)
}

/// Mounts `image` nowhere yet.
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
