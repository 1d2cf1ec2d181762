//! New generations in the live tree.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use millpond_core::Generation;

use super::super::Layout;
use super::super::testing::TestFile;
use super::{Mount, Setup, wait_until};

fn one() -> Vec<TestFile> {
    vec![
        TestFile::new("d/changed", 100_000),
        TestFile::new("d/gone", 10),
        TestFile::new("top", 10),
    ]
}

fn two() -> Vec<TestFile> {
    vec![
        TestFile::new("d/changed", 90_000).version("\"two\""),
        TestFile::new("d/new", 20),
        TestFile::new("top", 10),
    ]
}

fn check(mount: &Mount, root: &str, files: &[TestFile]) {
    for file in files {
        assert!(
            std::fs::read(mount.path(root).join(&file.path)).unwrap() == file.whole(),
            "{}",
            file.path
        );
    }
}

#[test]
fn new_opens_see_the_new_generation_and_open_files_keep_theirs() {
    for layout in [Layout::Directories, Layout::Live] {
        let Some(mount) = Mount::new(
            &one(),
            Setup {
                layout,
                ..Setup::default()
            },
        ) else {
            return;
        };
        let live = if layout == Layout::Live { "" } else { "live" };
        check(&mount, live, &one());
        let path = mount.path(live).join("d/changed");
        let held = File::open(&path).unwrap();
        assert_eq!(mount.server.needed_generations(), [Generation(1)].into());
        let missing = mount.path(live).join("d/new");
        assert!(!missing.exists());

        mount.show(2, &two());
        wait_until("the new generation", || missing.exists());
        let both = [Generation(1), Generation(2)].into();
        assert_eq!(mount.server.needed_generations(), both);
        check(&mount, live, &two());
        assert!(!mount.path(live).join("d/gone").exists());
        let names: Vec<_> = std::fs::read_dir(mount.path(live).join("d"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(names.len(), 2, "{names:?}");

        let mut whole = vec![0; 100_000];
        held.read_exact_at(&mut whole, 0).unwrap();
        assert!(whole == one()[0].whole());
        assert_ne!(
            held.metadata().unwrap().ino(),
            std::fs::metadata(&path).unwrap().ino()
        );
        if layout == Layout::Directories {
            check(&mount, "gen-1", &one());
            check(&mount, "gen-2", &two());
        }
    }
}

#[test]
fn an_open_file_outlives_its_catalog() {
    let Some(mount) = Mount::new(&one(), Setup::default()) else {
        return;
    };
    let held = File::open(mount.path("live/d/changed")).unwrap();
    let catalogs = mount.directory.path().join("catalog");
    for name in ["gen-1.erofs", "gen-1.index"] {
        std::fs::remove_file(catalogs.join(name)).unwrap();
    }
    mount.show(2, &two());
    wait_until("the new generation", || mount.path("live/d/new").exists());
    let mut whole = vec![0; 100_000];
    held.read_exact_at(&mut whole, 0).unwrap();
    assert!(whole == one()[0].whole());
    drop(held);
    mount.show(3, &one());
    wait_until("the third generation", || mount.path("live/d/gone").exists());
    assert!(!mount.path("gen-1").exists());
    check(&mount, "gen-2", &two());
}

#[test]
fn a_listing_whose_catalog_is_gone_is_an_error_and_never_short() {
    for directory in ["live", "live/d"] {
        let Some(mount) = Mount::new(&one(), Setup::default()) else {
            return;
        };
        let mut held = nix::dir::Dir::open(
            &mount.path(directory),
            nix::fcntl::OFlag::O_DIRECTORY,
            nix::sys::stat::Mode::empty(),
        )
        .unwrap();
        let catalogs = mount.directory.path().join("catalog");
        for name in ["gen-1.erofs", "gen-1.index"] {
            std::fs::remove_file(catalogs.join(name)).unwrap();
        }
        mount.show(2, &two());
        wait_until("the new generation", || mount.path("live/d/new").exists());
        let first = held.iter().next().map(|entry| entry.err());
        assert_eq!(first, Some(Some(nix::errno::Errno::ESTALE)), "{directory}");
    }
}

#[test]
fn a_listing_that_began_before_a_generation_changes_no_name_of_it() {
    let Some(mount) = Mount::new(&[TestFile::new("d", 10)], Setup::default()) else {
        return;
    };
    let mut held = nix::dir::Dir::open(
        &mount.path("live"),
        nix::fcntl::OFlag::O_DIRECTORY,
        nix::sys::stat::Mode::empty(),
    )
    .unwrap();
    let two = [TestFile::new("d/two", 20)];
    mount.show(2, &two);
    wait_until("the new generation", || mount.path("live/d/two").exists());
    let file = held
        .iter()
        .map(Result::unwrap)
        .find(|entry| entry.file_name() == c"d")
        .unwrap();
    assert_eq!(file.file_type(), Some(nix::dir::Type::File));
    check(&mount, "live", &two);
}

#[test]
fn a_mount_without_a_catalog_is_empty() {
    let Some(mount) = Mount::new(&[], Setup::default()) else {
        return;
    };
    assert_eq!(std::fs::read_dir(mount.path("live")).unwrap().count(), 0);
    mount.show(2, &one());
    wait_until("the first files", || mount.path("live/top").exists());
    check(&mount, "live", &one());
}
