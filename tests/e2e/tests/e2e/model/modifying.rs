//! Every call that would modify.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timestamps, Uid, XattrFlags};

/// A call on a path, by its name.
pub(crate) type Call = (&'static str, fn(&Path) -> io::Result<()>);

/// A call on an open file, by its name.
pub(crate) type FileCall = (&'static str, fn(&File) -> io::Result<()>);

fn open(path: &Path, options: &mut OpenOptions) -> io::Result<()> {
    options.open(path).map(drop)
}

fn beside(path: &Path) -> std::path::PathBuf {
    path.with_file_name("millpond-new")
}

const NOW: Timestamps = Timestamps {
    last_access: rustix::fs::Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    },
    last_modification: rustix::fs::Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    },
};

/// What may be tried on a path that leads to something.
pub(crate) const CALLS: &[Call] = &[
    ("open(O_WRONLY)", |path| {
        open(path, OpenOptions::new().write(true))
    }),
    ("open(O_RDWR)", |path| {
        open(path, OpenOptions::new().read(true).write(true))
    }),
    ("open(O_APPEND)", |path| {
        open(path, OpenOptions::new().append(true))
    }),
    ("open(O_TRUNC)", |path| {
        open(path, OpenOptions::new().write(true).truncate(true))
    }),
    ("open(O_CREAT) beside it", |path| {
        open(
            &beside(path),
            OpenOptions::new().write(true).create(true).truncate(false),
        )
    }),
    ("open(O_TMPFILE)", |path| {
        let parent = path.parent().unwrap_or(path);
        open(
            parent,
            OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE),
        )
    }),
    ("truncate", |path| {
        nix::unistd::truncate(path, 1).map_err(io::Error::from)
    }),
    ("unlink", |path| fs::remove_file(path)),
    ("rmdir", |path| fs::remove_dir(path)),
    ("rename from it", |path| fs::rename(path, beside(path))),
    ("link", |path| fs::hard_link(path, beside(path))),
    ("symlink", |path| {
        std::os::unix::fs::symlink("target", beside(path))
    }),
    ("mkdir", |path| fs::create_dir(beside(path))),
    ("mkfifo", |path| {
        Ok(rustix::fs::mknodat(
            CWD,
            beside(path),
            FileType::Fifo,
            Mode::RUSR,
            0,
        )?)
    }),
    ("chmod", |path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))
    }),
    ("chown", |path| {
        let (uid, gid) = (Uid::from_raw(7), Gid::from_raw(7));
        Ok(rustix::fs::chownat(
            CWD,
            path,
            Some(uid),
            Some(gid),
            AtFlags::empty(),
        )?)
    }),
    ("utimensat", |path| {
        Ok(rustix::fs::utimensat(CWD, path, &NOW, AtFlags::empty())?)
    }),
    ("setxattr", |path| {
        Ok(rustix::fs::setxattr(
            path,
            "user.new",
            b"value",
            XattrFlags::empty(),
        )?)
    }),
    ("removexattr", |path| {
        Ok(rustix::fs::removexattr(path, "user.millpond.etag")?)
    }),
    ("access(W_OK)", |path| {
        Ok(rustix::fs::access(path, rustix::fs::Access::WRITE_OK)?)
    }),
];

/// What may be tried on a file that is open for reading.
pub(crate) const FILE_CALLS: &[FileCall] = &[
    ("fchmod", |file| {
        file.set_permissions(fs::Permissions::from_mode(0o777))
    }),
    ("fchown", |file| {
        Ok(rustix::fs::fchown(file, Some(Uid::from_raw(7)), None)?)
    }),
    ("futimens", |file| Ok(rustix::fs::futimens(file, &NOW)?)),
    ("fsetxattr", |file| {
        let name = CString::new("user.new").map_err(io::Error::other)?;
        Ok(rustix::fs::fsetxattr(file, name, b"value", XattrFlags::empty())?)
    }),
];
