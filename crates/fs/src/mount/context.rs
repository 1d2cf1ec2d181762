//! The kernel's mount API as steps (fsopen, fsconfig, fsmount, move_mount): each option is a value of its own, so
//! that no character of a path can be parsed as a separator, and a mount is complete before it is visible.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen, move_mount,
};

use super::error::{MountError, Result};

/// The longest value of fsconfig: the kernel copies at most 256 bytes with the terminating zero.
const VALUE_LIMIT_BYTES: usize = 255;

/// The most lines read of a context's log; the kernel itself stores 8.
const LOG_LINES: usize = 8;

/// The attributes of all mounts: read-only, and nothing in a bucket becomes a privilege or a device.
pub(crate) fn safe_attributes() -> MountAttrFlags {
    MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV
}

/// A file system that is being configured.
#[derive(Debug)]
pub(crate) struct Context {
    fd: OwnedFd,
    /// The path in error messages.
    subject: PathBuf,
}

impl Context {
    pub(crate) fn open(file_system: &str, subject: &Path) -> Result<Self> {
        let fd = fsopen(file_system, FsOpenFlags::FSOPEN_CLOEXEC)
            .map_err(|error| MountError::new("get a mount context for", subject, error))?;
        Ok(Self {
            fd,
            subject: subject.to_owned(),
        })
    }

    pub(crate) fn text(&self, key: &str, value: &OsStr) -> Result<()> {
        fsconfig_set_string(self.fd.as_fd(), key, value.as_bytes())
            .map_err(|error| self.error("set a mount option for", error))
    }

    /// Creates the superblock and a read-only mount of it, attached nowhere yet.
    pub(crate) fn create(self) -> Result<DetachedMount> {
        self.create_with(safe_attributes())
    }

    /// As [`Self::create`], for a file system that will be written to.
    pub(crate) fn create_writable(self) -> Result<DetachedMount> {
        self.create_with(safe_attributes() - MountAttrFlags::MOUNT_ATTR_RDONLY)
    }

    /// As [`Self::create_writable`], for data only: nothing in it can be executed.
    pub(crate) fn create_for_data(self) -> Result<DetachedMount> {
        let writable = safe_attributes() - MountAttrFlags::MOUNT_ATTR_RDONLY;
        self.create_with(writable | MountAttrFlags::MOUNT_ATTR_NOEXEC)
    }

    fn create_with(self, attributes: MountAttrFlags) -> Result<DetachedMount> {
        fsconfig_create(self.fd.as_fd()).map_err(|error| self.error("create the file system for", error))?;
        let fd = fsmount(self.fd.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(|error| self.error("make a mount of", error))?;
        Ok(DetachedMount(fd))
    }

    fn error(&self, action: &'static str, error: rustix::io::Errno) -> MountError {
        MountError::new(action, &self.subject, error).with_log(self.log())
    }

    /// The kernel's log of this context: lines like "e overlay: missing lowerdir".
    fn log(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut buffer = [0_u8; 1024];
        while lines.len() < LOG_LINES {
            match rustix::io::read(self.fd.as_fd(), &mut buffer) {
                Ok(length) if length > 0 => {
                    let line = buffer.get(..length).unwrap_or_default();
                    lines.push(String::from_utf8_lossy(line).trim().to_owned());
                }
                _ => break,
            }
        }
        lines
    }
}

/// A path as the value of an option: itself, or a link in `/proc` where it is too long.
#[derive(Debug)]
pub(crate) struct PathValue {
    text: OsString,
    /// The link's target; `None` where the text is the path itself.
    _opened: Option<OwnedFd>,
}

impl PathValue {
    pub(crate) fn of(path: &Path) -> Result<Self> {
        if !Self::is_too_long(path) {
            return Ok(Self {
                text: path.as_os_str().to_owned(),
                _opened: None,
            });
        }
        let opened = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| MountError::new("open", path, error))?;
        let text = format!("/proc/self/fd/{}", opened.as_raw_fd()).into();
        Ok(Self {
            text,
            _opened: Some(opened),
        })
    }

    pub(crate) fn is_too_long(path: &Path) -> bool {
        path.as_os_str().len() > VALUE_LIMIT_BYTES
    }

    pub(crate) fn text(&self) -> &OsStr {
        &self.text
    }
}

/// A mount that is attached nowhere yet; it ends if this is dropped before.
#[derive(Debug)]
pub struct DetachedMount(OwnedFd);

impl DetachedMount {
    /// Attaches the mount at `target`, which must be a directory and not a symbolic link.
    pub(crate) fn attach(self, target: &Path) -> Result<()> {
        let directory = open_directory(target)?;
        move_mount(
            self.0.as_fd(),
            "",
            directory.as_fd(),
            "",
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
        )
        .map_err(|error| MountError::new("attach a mount at", target, error))
    }
}

impl AsFd for DetachedMount {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<DetachedMount> for OwnedFd {
    fn from(mount: DetachedMount) -> Self {
        mount.0
    }
}

impl From<OwnedFd> for DetachedMount {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

/// Opens a directory by name only: no request reaches the file system behind it.
pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd> {
    rustix::fs::openat(
        CWD,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| MountError::new("open the directory", path, error))
}
