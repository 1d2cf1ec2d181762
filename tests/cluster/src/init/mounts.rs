//! The mounts of a node.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};

/// Directories whose content is the node's own, on its disk.
const OWN: [&str; 8] = [
    "/var/lib/kubelet",
    "/var/lib/containerd",
    "/var/lib/cni",
    "/var/log/pods",
    "/var/log/containers",
    "/etc/cni/net.d",
    "/var/lib/millpond",
    "/mnt",
];

/// Below these, mounts of the machine are nothing to a node, which would pin them.
const FOREIGN: [&str; 4] = ["/tmp", "/mnt", "/media", "/home"];

const FUSE_CONTROL: &str = "/sys/fs/fuse/connections";

/// Cuts the mounts of this mount namespace off from those of the machine, of which they are a copy.
pub(super) fn make_private() -> Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .context("failed to make the mounts private")
}

/// Makes the mounts of the node whose disk is given.
pub(super) fn mount_all(disk: &Path) -> Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    mount("proc", "/proc", "proc", flags, None).context("failed to mount /proc")?;
    for point in mount_points()?.iter().rev() {
        if FOREIGN
            .iter()
            .any(|folder| point.starts_with(folder) && point != Path::new(folder))
        {
            // A mount on top of another one is unmounted with it.
            let _unmounted = unmount(point, UnmountFlags::DETACH);
        }
    }
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)?;
    for path in OWN {
        bind(disk, Path::new(path)).with_context(|| format!("failed to mount {path}"))?;
    }
    mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), Some(c"mode=755"))
        .context("failed to mount /run")?;
    for folder in ["/run/containerd", "/run/netns", "/run/lock"] {
        fs::create_dir(folder)?;
    }
    let control = Path::new(FUSE_CONTROL);
    if control.is_dir() && !mount_points()?.iter().any(|point| point == control) {
        mount("fusectl", control, "fusectl", MountFlags::empty(), None)?;
    }
    Ok(())
}

/// Mounts a directory of the disk at `path`, with a group of propagation of its own: what is mounted below is seen by the
/// pods that ask for it, and by no other node.
fn bind(disk: &Path, path: &Path) -> Result<()> {
    let source = disk.join(path.strip_prefix("/")?);
    for folder in [path, &source] {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    }
    mount_bind(&source, path)?;
    mount_change(path, MountPropagationFlags::PRIVATE)?;
    mount_change(path, MountPropagationFlags::SHARED)?;
    Ok(())
}

fn mount_points() -> Result<Vec<PathBuf>> {
    let mounts = procfs::process::Process::myself()?.mountinfo()?;
    Ok(mounts
        .into_iter()
        .map(|mount| unescape(&mount.mount_point))
        .collect())
}

/// The kernel writes blanks and backslashes as a backslash and three octal digits.
fn unescape(path: &Path) -> PathBuf {
    let mut rest = path.as_os_str().as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((byte, tail)) = rest.split_first() {
        let digits = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (byte, escaped) {
            (b'\\', Some(escaped)) => {
                bytes.push(escaped);
                rest = tail.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_how_the_kernel_writes_paths() {
        for (written, path) in [
            ("/tmp/plain", "/tmp/plain"),
            ("/tmp/a\\040b\\134c", "/tmp/a b\\c"),
            ("/tmp/end\\", "/tmp/end\\"),
        ] {
            assert_eq!(unescape(Path::new(written)), Path::new(path));
        }
    }
}
