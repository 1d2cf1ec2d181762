//! Mounting and unmounting, with and without CAP_SYS_ADMIN.
//!
//! `fuser` could mount, but its session unmounts by path when it ends, whatever is mounted there by then; a mount that
//! outlives its server must stay.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{major, minor};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
};
use tracing::debug;

use super::session::open_device;
use crate::mount::mounted_device;

/// The size of requests of sequential reads through the page cache (measured: more gains nothing).
const READ_AHEAD_KIB: u32 = 1024;

/// A new mount.
#[derive(Debug)]
pub(crate) struct Mounted {
    pub(crate) device: OwnedFd,
    /// Whether all users may access it, not only the one that mounted it.
    pub(crate) for_all: bool,
}

/// Mounts a FUSE file system, read-only, for all users where that is allowed.
pub(crate) fn mount(mountpoint: &Path, source: &str) -> io::Result<Mounted> {
    let device = match open_device() {
        Ok(device) => device,
        // fusermount3 may open it where only root may.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return mount_as_user(mountpoint, source);
        }
        Err(error) => return Err(error),
    };
    let mode = std::fs::metadata(mountpoint)?.mode();
    let (uid, gid) = (
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    let number = std::os::fd::AsRawFd::as_raw_fd(&device);
    let options =
        format!("fd={number},rootmode={mode:o},user_id={uid},group_id={gid},default_permissions,allow_other");
    let options = std::ffi::CString::new(options)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    match rustix::mount::mount(source, mountpoint, "fuse.millpond", flags, options.as_c_str()) {
        Ok(()) => Ok(Mounted {
            device,
            for_all: true,
        }),
        Err(rustix::io::Errno::PERM) => mount_as_user(mountpoint, source),
        Err(error) => Err(error.into()),
    }
}

/// Unmounts. With `detach` even if it is in use: processes that use it keep it until they close it.
pub(crate) fn unmount(mountpoint: &Path, detach: bool) -> io::Result<()> {
    let flags = if detach {
        UnmountFlags::DETACH
    } else {
        UnmountFlags::empty()
    } | UnmountFlags::NOFOLLOW;
    match rustix::mount::unmount(mountpoint, flags) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::PERM) => {
            let mut command = fusermount();
            command.arg("-u").arg("-q");
            if detach {
                command.arg("-z");
            }
            let status = command.arg("--").arg(mountpoint).stdin(Stdio::null()).status()?;
            if status.success() {
                Ok(())
            } else {
                Err(io::ErrorKind::ResourceBusy.into())
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// Sets the kernel's readahead to the size of one request.
pub(crate) fn widen_read_ahead(mountpoint: &Path) {
    let widened = mounted_device(mountpoint).and_then(|device| {
        let path = format!("/sys/class/bdi/{}:{}/read_ahead_kb", major(device), minor(device));
        std::fs::write(path, READ_AHEAD_KIB.to_string())
    });
    if let Err(error) = widened {
        debug!(%error, "failed to set the readahead; mapped files that are not cached are read more slowly");
    }
}

fn fusermount() -> Command {
    Command::new("fusermount3")
}

/// Mounts through the set-uid helper, which sends the device's descriptor over a socket, its standard input here.
fn mount_as_user(mountpoint: &Path, source: &str) -> io::Result<Mounted> {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let options = format!("ro,nosuid,nodev,noatime,default_permissions,fsname={source},subtype=millpond");
    let output = fusermount()
        .arg("-o")
        .arg(options)
        .arg("--")
        .arg(mountpoint)
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(theirs))
        .output()?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    rustix::net::recvmsg(
        &ours,
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    )?;
    let device = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let device = device.ok_or_else(|| io::Error::other("fusermount3 sent no descriptor"))?;
    Ok(Mounted {
        device,
        for_all: false,
    })
}
