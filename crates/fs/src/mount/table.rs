//! The mounts that this process sees, from `/proc/self/mountinfo`.
//!
//! Read as bytes, because a mount point is any bytes: the `procfs` crate expects UTF-8 and leaves escaped spaces
//! escaped, so that one strange mount anywhere on the node would make it fail for all of them. Reading the
//! table sends no requests to the file systems in it, so a dead one cannot make it wait.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::makedev;

/// One entry of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The kernel's number of the mount.
    pub id: u64,
    /// The number of the file system's device.
    pub device: u64,
    /// The mounted directory of the file system.
    pub root: PathBuf,
    /// The mountpoint.
    pub point: PathBuf,
    /// Type of the file system, such as `overlay`.
    pub file_system: OsString,
    /// Its source.
    pub source: OsString,
    /// The file system's options in their order, unescaped, each as `key` or `key=value`.
    pub options: Vec<OsString>,
}

impl Mount {
    /// All values of an option that may be given several times.
    pub fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a std::ffi::OsStr> + 'a {
        self.options.iter().filter_map(move |option| {
            let rest = option
                .as_bytes()
                .strip_prefix(key.as_bytes())?
                .strip_prefix(b"=")?;
            Some(std::ffi::OsStr::from_bytes(rest))
        })
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let id = number(fields.next()?)?;
        let _parent = fields.next()?;
        let mut device = fields.next()?.split(|byte| *byte == b':');
        let device = makedev(
            u32::try_from(number(device.next()?)?).ok()?,
            u32::try_from(number(device.next()?)?).ok()?,
        );
        let root = unescape(fields.next()?).into();
        let point = unescape(fields.next()?).into();
        // The mount's own flags and its propagation, up to the dash.
        let _flags = fields.by_ref().find(|field| *field == b"-")?;
        let file_system = unescape(fields.next()?);
        let source = unescape(fields.next()?);
        let options = fields.next()?.split(|byte| *byte == b',').map(unescape).collect();
        Some(Self {
            id,
            device,
            root,
            point,
            file_system,
            source,
            options,
        })
    }
}

/// A snapshot of the table.
#[derive(Clone, Debug, Default)]
pub struct MountTable {
    mounts: Vec<Mount>,
}

impl MountTable {
    /// Reads the table of this process's mount namespace.
    ///
    /// # Errors
    /// Where `/proc` is not mounted.
    pub fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read("/proc/self/mountinfo")?))
    }

    fn parse(table: &[u8]) -> Self {
        Self {
            mounts: table
                .split(|byte| *byte == b'\n')
                .filter_map(Mount::parse)
                .collect(),
        }
    }

    /// What is mounted at `point`, the topmost where several are. `point` must be an absolute path without links.
    pub fn top_at(&self, point: &Path) -> Option<&Mount> {
        // Mounts are listed in the order of their creation.
        self.mounts.iter().rev().find(|mount| mount.point == point)
    }

    /// All mounts, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.mounts.iter()
    }
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Decodes the kernel's escapes: a backslash and three octal digits for a byte.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        match (first, octal(tail)) {
            (b'\\', Some((byte, after))) => {
                bytes.push(byte);
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

fn octal(text: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, rest) = text.split_at_checked(3)?;
    let value = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()?;
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n\
        49 27 0:40 / /mnt/a\\040b\\134c\\012\xff ro,nosuid,nodev,relatime - overlay millpond:x ro,lowerdir+=/cat,\
        datadir+=/o2\\054a:b\\040c,datadir+=/l,nfs_export=on\n\
        garbage\n\
        50 49 0:41 /gen-1 /mnt/a\\040b\\134c\\012\xff ro - fuse.millpond  ro\n";

    #[test]
    fn reads_mount_points_of_any_bytes() {
        let table = MountTable::parse(TABLE);
        assert_eq!(table.iter().count(), 3, "the invalid line is skipped");
        let point = PathBuf::from(OsString::from_vec(b"/mnt/a b\\c\n\xff".to_vec()));
        let top = table.top_at(&point).unwrap();
        assert_eq!((top.id, top.device), (50, makedev(0, 41)));
        assert_eq!(top.root, Path::new("/gen-1"));
        assert_eq!(top.source, "");
    }

    #[test]
    fn reads_options_that_hold_separators() {
        let table = MountTable::parse(TABLE);
        let overlay = table.iter().find(|mount| mount.file_system == "overlay").unwrap();
        let layers: Vec<_> = overlay.values("datadir+").collect();
        assert_eq!(layers, ["/o2,a:b c", "/l"]);
        assert_eq!(overlay.values("nfs_export").collect::<Vec<_>>(), ["on"]);
        assert_eq!(overlay.values("nfs").count(), 0);
    }

    #[test]
    fn reads_the_table_of_this_process() {
        assert!(MountTable::read().unwrap().top_at(Path::new("/")).is_some());
    }
}
