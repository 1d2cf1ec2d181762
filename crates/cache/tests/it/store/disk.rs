//! A file system that a test has for itself, so that the space used on it is the store's.

use std::path::PathBuf;
use std::process::Command;

use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

pub(crate) const MIB: u64 = 1 << 20;

/// Kind of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An ext4 on a loop device, which ends with its mount.
    Ext4,
    Tmpfs,
}

/// Bytes and inodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

/// A mounted file system; unmounted when dropped.
pub(crate) struct Disk {
    folder: TempDir,
    empty: Taken,
    /// How often the space is measured again.
    retries: u32,
}

impl Disk {
    pub(crate) fn new(kind: Kind, bytes: u64) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("millpond-store-")
            .tempdir()
            .unwrap();
        let mut disk = Self {
            folder,
            empty: Taken::default(),
            retries: if kind == Kind::Ext4 { 10 } else { 0 },
        };
        std::fs::create_dir(disk.mountpoint()).unwrap();
        let mut mount = Command::new("mount");
        match kind {
            Kind::Ext4 => {
                let image = disk.folder.path().join("image");
                std::fs::File::create(&image).unwrap().set_len(bytes).unwrap();
                run(Command::new("mkfs.ext4")
                    .args(["-q", "-F", "-m", "0"])
                    .arg(&image));
                mount.args(["-o", "loop"]).arg(&image);
            }
            Kind::Tmpfs => {
                mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "millpond-store"]);
            }
        }
        run(mount.arg(disk.mountpoint()));
        disk.empty = disk.all_taken();
        disk
    }

    fn mountpoint(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// Path for a cache directory.
    pub(crate) fn cache(&self) -> PathBuf {
        self.mountpoint().join("cache")
    }

    /// Path for a file that is not the store's.
    pub(crate) fn other_file(&self) -> PathBuf {
        self.mountpoint().join("other")
    }

    /// The space used beyond that of the empty file system; files being written and unlinked files are included.
    pub(crate) fn taken(&self) -> Taken {
        let all = self.all_taken();
        Taken {
            bytes: all.bytes - self.empty.bytes,
            inodes: all.inodes - self.empty.inodes,
        }
    }

    /// [`taken`](Self::taken) of a file system that is being written. An ext4 counts blocks that are being allocated twice for
    /// microseconds, as not free any more and as still reserved: so the least of several measurements in a row counts. (A
    /// tmpfs is right at every moment.)
    pub(crate) fn taken_surely(&self, limit: Taken) -> Taken {
        let mut least = self.taken();
        for _ in 0..self.retries {
            if least.bytes <= limit.bytes && least.inodes <= limit.inodes {
                break;
            }
            std::thread::yield_now();
            let Taken { bytes, inodes } = self.taken();
            least.bytes = least.bytes.min(bytes);
            least.inodes = least.inodes.min(inodes);
        }
        least
    }

    /// The bytes that any user can still write.
    pub(crate) fn free_bytes(&self) -> u64 {
        let found = rustix::fs::statvfs(self.mountpoint()).unwrap();
        found.f_bavail * found.f_frsize
    }

    fn all_taken(&self) -> Taken {
        let found = rustix::fs::statvfs(self.mountpoint()).unwrap();
        Taken {
            bytes: (found.f_blocks - found.f_bfree) * found.f_frsize,
            inodes: found.f_files - found.f_ffree,
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Where mounting failed there is nothing to unmount.
        unmount(self.mountpoint(), UnmountFlags::DETACH).ok();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
}
