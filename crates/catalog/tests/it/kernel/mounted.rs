//! Kernel mount of an image.

use std::path::Path;
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

/// Mount that is unmounted when it is dropped.
pub(crate) struct Mounted {
    directory: TempDir,
}

impl Mounted {
    pub(crate) fn new(image: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        mount(image, directory.path(), "erofs", MountFlags::RDONLY, None)
            .expect("the kernel mounts the image");
        Self { directory }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(self.directory.path(), UnmountFlags::DETACH);
    }
}

/// Panics if `fsck.erofs` finds a problem.
pub(crate) fn fsck(image: &Path) {
    let output = Command::new("fsck.erofs")
        .arg(image)
        .output()
        .expect("fsck.erofs is installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}
