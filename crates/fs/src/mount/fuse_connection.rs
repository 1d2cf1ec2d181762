//! FUSE connections in the kernel: their numbers, and their end.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};
use rustix::mount::UnmountFlags;

use super::table::MountTable;

/// The number of the connection that is mounted here: its directory below `/sys/fs/fuse/connections`, and the minor
/// number of the file system's device. Sends nothing to the server.
pub(crate) fn fuse_connection(mountpoint: &Path) -> io::Result<u32> {
    let device = mounted_device(mountpoint)?;
    if major(device) == 0 {
        Ok(minor(device))
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// The device number of the file system that is mounted here.
pub(crate) fn mounted_device(mountpoint: &Path) -> io::Result<u64> {
    let table = MountTable::read()?;
    let mount = table.top_at(mountpoint).ok_or(io::ErrorKind::NotFound)?;
    Ok(mount.device)
}

/// Aborts a connection: every request on it, and every later one, fails.
///
/// Where the control file system is not mounted, the connection is aborted by unmounting it with force. One that is not
/// mounted anywhere ends when the last descriptor of it is closed.
pub(crate) fn abort_fuse_connection(connection: u32) -> io::Result<()> {
    let path: PathBuf = ["/sys/fs/fuse/connections", &connection.to_string(), "abort"]
        .iter()
        .collect();
    match std::fs::write(path, b"1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    let table = MountTable::read()?;
    let mounted = table.iter().filter(|mount| {
        let is_connection = (major(mount.device), minor(mount.device)) == (0, connection);
        is_connection && mount.file_system.as_encoded_bytes().starts_with(b"fuse")
    });
    let Some(mounted) = mounted.last() else {
        return Ok(());
    };
    let flags = UnmountFlags::FORCE | UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    Ok(rustix::mount::unmount(&mounted.point, flags)?)
}
