//! Names, attributes, listings, and that nothing can be changed.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, UNIX_EPOCH};

use super::super::testing::TestFile;
use super::{Mount, Setup};

fn files() -> Vec<TestFile> {
    vec![
        TestFile::new("a/b/one.bin", 100_000),
        TestFile::new("a/b/two.bin", 0),
        TestFile::new("a/three.bin", 5_000_000),
        TestFile::new("four.bin", 17),
    ]
}

#[test]
fn the_tree_is_what_the_catalog_says() {
    let Some(mount) = Mount::new(&files(), Setup::default()) else {
        return;
    };
    for root in ["gen-1", "live"] {
        for file in files() {
            let metadata = std::fs::metadata(mount.path(root).join(&file.path)).unwrap();
            assert_eq!(metadata.len(), file.size);
            assert_eq!(metadata.mtime(), 1_600_000_000);
            assert_eq!(metadata.mtime_nsec(), 5);
            assert_eq!(metadata.mode(), 0o100_444);
            assert_eq!((metadata.uid(), metadata.gid(), metadata.nlink()), (0, 0, 1));
        }
        let names: BTreeSet<_> = std::fs::read_dir(mount.path(root).join("a/b"))
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let metadata = std::fs::metadata(entry.path()).unwrap();
                assert_eq!(metadata.ino(), std::os::unix::fs::DirEntryExt::ino(&entry));
                entry.file_name().into_string().unwrap()
            })
            .collect();
        assert_eq!(names, ["one.bin".to_owned(), "two.bin".to_owned()].into());
        let missing = std::fs::metadata(mount.path(root).join("a/none")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        let below = std::fs::metadata(mount.path(root).join("four.bin/x")).unwrap_err();
        assert_eq!(below.kind(), ErrorKind::NotADirectory);
    }
    let root: BTreeSet<_> = std::fs::read_dir(mount.server.mountpoint())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(
        root,
        ["gen-1", "last", "live", "objects"].map(str::to_owned).into()
    );
    assert_eq!(std::fs::read_dir(mount.path("objects")).unwrap().count(), 0);
}

#[test]
fn a_large_directory_lists_each_name_once() {
    let files: Vec<_> = (0..20_000)
        .map(|index| TestFile::new(format!("d/file-{index:06}"), index))
        .collect();
    let Some(mount) = Mount::new(&files, Setup::default()) else {
        return;
    };
    for root in ["gen-1/d", "live/d"] {
        // Twice: the second listing is from the kernel's cache.
        for _ in 0..2 {
            let mut names: Vec<_> = std::fs::read_dir(mount.path(root))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort_unstable();
            assert!(names.iter().eq(files.iter().map(|file| &file.path["d/".len()..])));
        }
    }
    assert_eq!(
        std::fs::metadata(mount.path("live/d/file-012345")).unwrap().len(),
        12_345
    );
}

#[test]
fn statfs_tells_the_size_of_the_tree() {
    let Some(mount) = Mount::new(&files(), Setup::default()) else {
        return;
    };
    for path in ["", "gen-1/a", "live"] {
        let status = rustix::fs::statvfs(mount.path(path)).unwrap();
        assert_eq!(status.f_blocks, 5_100_017_u64.div_ceil(4096));
        assert_eq!((status.f_bfree, status.f_bavail, status.f_ffree), (0, 0, 0));
        assert!(status.f_files >= 4);
        assert!(status.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    }
}

#[test]
fn xattrs_name_validator_and_source_and_nothing_else() {
    let Some(mount) = Mount::new(&files(), Setup::default()) else {
        return;
    };
    let path = mount.path("live/a/three.bin");
    let get = |name: &str, room: usize| {
        let mut value = vec![0; room];
        let length = rustix::fs::getxattr(&path, name, &mut value)?;
        Ok::<_, rustix::io::Errno>((length, value[..length.min(room)].to_vec()))
    };
    assert_eq!(get("user.millpond.etag", 100).unwrap().1, b"\"one\"");
    assert_eq!(rustix::fs::getxattr_query(&path, "user.millpond.etag"), Ok(5));
    assert_eq!(get("user.millpond.etag", 2), Err(rustix::io::Errno::RANGE));
    assert!(
        get("user.millpond.source", 100)
            .unwrap()
            .1
            .starts_with(b"s3://bucket")
    );
    assert_eq!(get("user.other", 100), Err(rustix::io::Errno::NODATA));
    assert_eq!(
        get("trusted.overlay.redirect", 100),
        Err(rustix::io::Errno::NODATA)
    );
    let mut names = vec![0; 1000];
    let length = rustix::fs::listxattr(&path, &mut names).unwrap();
    let names: BTreeSet<_> = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .collect();
    assert_eq!(
        names,
        [b"user.millpond.etag".as_slice(), b"user.millpond.source"].into()
    );
    let mut none = [0; 10];
    assert_eq!(rustix::fs::listxattr(mount.path("live/a"), &mut none), Ok(0));
}

#[test]
fn every_modification_is_erofs() {
    let Some(mount) = Mount::new(&files(), Setup::default()) else {
        return;
    };
    for root in ["gen-1", "live"] {
        let file = mount.path(root).join("four.bin");
        let new = mount.path(root).join("new");
        let directory = mount.path(root).join("a");
        let open = |options: &mut OpenOptions| options.open(&file).map(drop);
        let times = std::fs::FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(1));
        let attempts: Vec<(&str, std::io::Result<()>)> = vec![
            ("write", open(OpenOptions::new().write(true))),
            ("append", open(OpenOptions::new().append(true))),
            ("truncate", open(OpenOptions::new().write(true).truncate(true))),
            ("create", File::create(&new).map(drop)),
            ("mkdir", std::fs::create_dir(&new)),
            ("remove", std::fs::remove_file(&file)),
            ("rmdir", std::fs::remove_dir(&directory)),
            ("rename", std::fs::rename(&file, &new)),
            ("link", std::fs::hard_link(&file, &new)),
            ("symlink", symlink("x", &new)),
            (
                "chmod",
                std::fs::set_permissions(&file, Permissions::from_mode(0o644)),
            ),
            ("chown", std::os::unix::fs::chown(&file, Some(1), Some(1))),
            ("utimes", File::open(&file).and_then(|file| file.set_times(times))),
            (
                "setxattr",
                rustix::fs::setxattr(&file, "user.x", b"y", rustix::fs::XattrFlags::empty())
                    .map_err(Into::into),
            ),
            (
                "removexattr",
                rustix::fs::removexattr(&file, "user.millpond.etag").map_err(Into::into),
            ),
            (
                "mkfifo",
                rustix::fs::mknodat(
                    rustix::fs::CWD,
                    &new,
                    rustix::fs::FileType::Fifo,
                    rustix::fs::Mode::RUSR,
                    0,
                )
                .map_err(Into::into),
            ),
            (
                "access",
                rustix::fs::access(&file, rustix::fs::Access::WRITE_OK).map_err(Into::into),
            ),
        ];
        for (what, result) in attempts {
            let error = result.expect_err(what);
            assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{what}: {error}");
        }
        assert_eq!(std::fs::metadata(&file).unwrap().len(), 17);
    }
}
