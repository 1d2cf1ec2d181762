//! Mounts with mapped owners, as container runtimes create them for pods with a user namespace of their own.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::OpenTreeFlags;

use super::super::testing::TestFile;
use super::{Mount, Setup, io, wait_until};

/// The first kernel that has FUSE mounts with mapped owners.
const KERNEL: (u32, u32) = (6, 12);

/// The user outside of the user namespace that is root in it.
const ROOT: u32 = 100_000;

/// A process with a user namespace of its own.
struct OtherUsers(Child);

impl OtherUsers {
    fn start() -> Self {
        let child = Command::new("unshare")
            .args(["--user", "sleep", "60"])
            .spawn()
            .unwrap();
        let users = Self(child);
        let own = std::fs::read_link("/proc/self/ns/user").unwrap();
        wait_until("the user namespace", || {
            std::fs::read_link(users.path("ns/user")).is_ok_and(|its| its != own)
        });
        for map in ["uid_map", "gid_map"] {
            std::fs::write(users.path(map), format!("0 {ROOT} 65536")).unwrap();
        }
        users
    }

    fn path(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.0.id())
    }
}

impl Drop for OtherUsers {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn has_mapped_owners() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split('.').map_while(|number| number.parse::<u32>().ok());
    let has = numbers
        .next()
        .zip(numbers.next())
        .is_some_and(|version| version >= KERNEL);
    if !has {
        eprintln!("not run: Linux {release} has no FUSE mounts with mapped owners");
    }
    has
}

#[test]
fn a_mapped_copy_of_the_mount_reads_right_with_mapped_owners() {
    let files = [
        TestFile::new("a/one.bin", 100_000),
        TestFile::new("two.bin", 3_000_000),
    ];
    let Some(mount) = Mount::new(&files, Setup::default()).filter(|_| has_mapped_owners()) else {
        return;
    };
    let users = OtherUsers::start();
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let copy = rustix::mount::open_tree(CWD, mount.path("live"), flags).unwrap();
    io::map_owners(&copy, &File::open(users.path("ns/user")).unwrap()).unwrap();
    for file in &files {
        let opened = rustix::fs::openat(&copy, &file.path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let mut opened = File::from(opened.unwrap());
        let metadata = opened.metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (ROOT, ROOT));
        let mut read = Vec::new();
        opened.read_to_end(&mut read).unwrap();
        assert!(read == file.whole(), "{}", file.path);
        // Unmapped users read as before.
        let plain = std::fs::metadata(mount.path("live").join(&file.path)).unwrap();
        assert_eq!((plain.uid(), plain.gid()), (0, 0));
    }
}
