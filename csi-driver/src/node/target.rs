//! Target of a pod's volume: a path from the kubelet, which must not lead outside of the kubelet's directory.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, unlinkat};

use super::error::VolumeError;
use super::layout::Layout;

/// Longest path that the kernel accepts.
const MAX_BYTES: usize = 4095;

/// Checked target: below the kubelet's directory, and not in this driver's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    path: PathBuf,
    /// The kubelet's directory.
    root: PathBuf,
}

impl Target {
    /// # Errors
    /// If a pod cannot have a volume at the path.
    pub(crate) fn parse(field: &'static str, path: &str, layout: &Layout) -> Result<Self, VolumeError> {
        let invalid = |reason: &str| VolumeError::invalid(field, format!("{path:?} {reason}"));
        if path.is_empty() {
            return Err(VolumeError::invalid(field, "is missing"));
        }
        if path.len() > MAX_BYTES || path.contains('\0') {
            return Err(VolumeError::invalid(field, "is not a path"));
        }
        let given = Path::new(path);
        if !given.is_absolute() {
            return Err(invalid("is not absolute"));
        }
        let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        if path.split('/').any(|part| part == "." || part == "..") || !given.components().all(plain) {
            return Err(invalid("contains \".\" or \"..\""));
        }
        // Without double or trailing slashes, as in the mount table.
        let path: PathBuf = given.components().collect();
        let below = path.strip_prefix(layout.kubelet()).map(Path::to_owned);
        match below {
            Ok(below) if !below.as_os_str().is_empty() => {}
            _ => {
                return Err(invalid(&format!(
                    "is not below the kubelet's directory {}",
                    layout.kubelet().display()
                )));
            }
        }
        if path.starts_with(layout.plugin()) || layout.plugin().starts_with(&path) {
            return Err(invalid("is this driver's own directory"));
        }
        Ok(Self {
            path,
            root: layout.kubelet().to_owned(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the directory if needed. The kubelet creates its parent.
    pub(crate) fn create(&self) -> io::Result<()> {
        let (parent, name) = self.open_parent()?;
        match mkdirat(parent.as_fd(), name, Mode::from_raw_mode(0o750)) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::EXIST) => {
                // By name only: without a request to the file system mounted there.
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                openat(parent.as_fd(), name, flags, Mode::empty())?;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the directory; succeeds if it does not exist.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let (parent, name) = match self.open_parent() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        match unlinkat(parent.as_fd(), name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns whether the parent, which the kubelet creates for the pod, exists.
    pub(crate) fn has_parent(&self) -> bool {
        self.open_parent().is_ok()
    }

    fn open_parent(&self) -> io::Result<(OwnedFd, &std::ffi::OsStr)> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let name = self.path.file_name().ok_or_else(invalid)?;
        let below = self
            .path
            .strip_prefix(&self.root)
            .map_err(|_elsewhere| invalid())?;
        let parent = below.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = open_below(&self.root, parent.unwrap_or(Path::new(".")))?;
        Ok((directory, name))
    }
}

/// Opens a directory below `root` by name only, following no links.
pub(super) fn open_below(root: &Path, below: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, root, flags, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(root.as_fd(), below, flags, Mode::empty(), resolve)?)
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn targets_elsewhere_are_refused() {
        let layout = Layout::new("/var/lib/kubelet", "/var/lib/millpond");
        for wrong in [
            "",
            "pods/x",
            "/etc",
            "/var/lib/kubelet",
            "/var/lib/kubelet/",
            "/var/lib/kubelet2/pods",
            "/var/lib/kubelet/pods/../../../etc",
            "/var/lib/kubelet/./pods",
            "/var/lib/kubelet/plugins/csi.millpond.io/datasets/x",
            "/var/lib/kubelet/plugins",
        ] {
            assert!(Target::parse("target_path", wrong, &layout).is_err(), "{wrong}");
        }
        let right = Target::parse("target_path", "/var/lib/kubelet//pods/a/mount/", &layout).unwrap();
        assert_eq!(right.path(), Path::new("/var/lib/kubelet/pods/a/mount"));
    }

    #[test]
    fn links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let layout = Layout::new(root.join("kubelet"), root.join("host"));
        std::fs::create_dir_all(root.join("kubelet/pods/a")).unwrap();
        std::fs::create_dir_all(root.join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(root.join("elsewhere"), root.join("kubelet/pods/link")).unwrap();
        std::os::unix::fs::symlink(root.join("elsewhere"), root.join("kubelet/pods/a/mount")).unwrap();
        let target = |path: &str| {
            let path = root.join("kubelet").join(path);
            Target::parse("target_path", path.to_str().unwrap(), &layout).unwrap()
        };
        assert!(target("pods/link/mount").create().is_err());
        assert!(target("pods/a/mount").create().is_err());
        assert!(target("pods/none/mount").create().is_err());
        let right = target("pods/a/other");
        right.create().unwrap();
        right.create().unwrap();
        right.remove().unwrap();
        right.remove().unwrap();
        assert_eq!(std::fs::read_dir(root.join("elsewhere")).unwrap().count(), 0);
    }
}
