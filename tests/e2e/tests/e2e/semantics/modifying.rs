//! Every way to modify is EROFS.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use harness::expect_errno;
use nix::sys::stat::{Mode, SFlag};

use super::Statement;
use super::tree::{SMALL, Tree};

pub(crate) const STATEMENTS: &[Statement] = statements![
    opening_for_writing_is_erofs,
    creating_is_erofs,
    truncating_is_erofs,
    appending_is_erofs,
    removing_is_erofs,
    renaming_is_erofs,
    linking_is_erofs,
    making_directories_is_erofs,
    removing_directories_is_erofs,
    making_special_files_is_erofs,
    changing_modes_is_erofs,
    changing_owners_is_erofs,
    changing_times_is_erofs,
    changing_xattrs_is_erofs,
    an_unnamed_file_is_erofs,
    write_access_is_erofs,
    what_failed_changed_nothing,
];

fn errno<T>(result: nix::Result<T>) -> io::Result<T> {
    result.map_err(io::Error::from)
}

fn opening_for_writing_is_erofs(tree: &Tree) {
    expect_errno(
        OpenOptions::new().write(true).open(tree.join(SMALL)),
        libc::EROFS,
        "O_WRONLY",
    );
    expect_errno(
        OpenOptions::new().read(true).write(true).open(tree.join(SMALL)),
        libc::EROFS,
        "O_RDWR",
    );
}

fn creating_is_erofs(tree: &Tree) {
    expect_errno(fs::File::create(tree.join("new")), libc::EROFS, "a new file");
    expect_errno(
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(tree.join("train/new")),
        libc::EROFS,
        "O_EXCL",
    );
}

fn truncating_is_erofs(tree: &Tree) {
    expect_errno(
        errno(nix::unistd::truncate(&tree.join(SMALL), 0)),
        libc::EROFS,
        "truncate",
    );
    expect_errno(
        OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(tree.join(SMALL)),
        libc::EROFS,
        "O_TRUNC",
    );
}

fn appending_is_erofs(tree: &Tree) {
    expect_errno(
        OpenOptions::new().append(true).open(tree.join(SMALL)),
        libc::EROFS,
        "O_APPEND",
    );
}

fn removing_is_erofs(tree: &Tree) {
    expect_errno(fs::remove_file(tree.join(SMALL)), libc::EROFS, "unlink");
}

fn renaming_is_erofs(tree: &Tree) {
    expect_errno(
        fs::rename(tree.join(SMALL), tree.join("other")),
        libc::EROFS,
        "rename of a file",
    );
    expect_errno(
        fs::rename(tree.join("train"), tree.join("other")),
        libc::EROFS,
        "rename of a directory",
    );
}

fn linking_is_erofs(tree: &Tree) {
    expect_errno(
        fs::hard_link(tree.join(SMALL), tree.join("other")),
        libc::EROFS,
        "link",
    );
    expect_errno(
        std::os::unix::fs::symlink(SMALL, tree.join("other")),
        libc::EROFS,
        "symlink",
    );
}

fn making_directories_is_erofs(tree: &Tree) {
    expect_errno(fs::create_dir(tree.join("new")), libc::EROFS, "mkdir");
}

fn removing_directories_is_erofs(tree: &Tree) {
    expect_errno(fs::remove_dir(tree.join("train/n01440764")), libc::EROFS, "rmdir");
}

fn making_special_files_is_erofs(tree: &Tree) {
    for kind in [SFlag::S_IFIFO, SFlag::S_IFCHR, SFlag::S_IFREG] {
        let made = nix::sys::stat::mknod(&tree.join("new"), kind, Mode::S_IRUSR, 0);
        expect_errno(errno(made), libc::EROFS, &format!("mknod {kind:?}"));
    }
}

fn changing_modes_is_erofs(tree: &Tree) {
    let mode: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    expect_errno(fs::set_permissions(tree.join(SMALL), mode), libc::EROFS, "chmod");
}

fn changing_owners_is_erofs(tree: &Tree) {
    expect_errno(
        std::os::unix::fs::chown(tree.join(SMALL), Some(1), Some(1)),
        libc::EROFS,
        "chown",
    );
}

fn changing_times_is_erofs(tree: &Tree) {
    let now = nix::sys::time::TimeVal::new(1, 0);
    expect_errno(
        errno(nix::sys::stat::utimes(&tree.join(SMALL), &now, &now)),
        libc::EROFS,
        "utimes",
    );
}

fn set_xattr(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::setxattr(
        path,
        "user.test",
        b"x",
        rustix::fs::XattrFlags::empty(),
    )?)
}

fn changing_xattrs_is_erofs(tree: &Tree) {
    expect_errno(set_xattr(&tree.join(SMALL)), libc::EROFS, "setxattr");
    let removed = rustix::fs::removexattr(tree.join(SMALL), "user.millpond.etag").map_err(io::Error::from);
    expect_errno(removed, libc::EROFS, "removexattr");
}

fn an_unnamed_file_is_erofs(tree: &Tree) {
    let opened = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .open(tree.root());
    expect_errno(opened, libc::EROFS, "O_TMPFILE");
}

fn write_access_is_erofs(tree: &Tree) {
    for path in [tree.join(SMALL), tree.join("train")] {
        expect_errno(
            errno(nix::unistd::access(&path, nix::unistd::AccessFlags::W_OK)),
            libc::EROFS,
            "access(W_OK)",
        );
        nix::unistd::access(&path, nix::unistd::AccessFlags::R_OK).unwrap();
    }
}

fn what_failed_changed_nothing(tree: &Tree) {
    assert!(fs::read(tree.join(SMALL)).unwrap() == tree.bytes(SMALL));
    assert!(!tree.join("new").exists() && !tree.join("other").exists());
}
