//! What a reader sees of a source that changes, fails, or holds keys that cannot be files. Each statement has a source and a
//! mount of its own.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use harness::{Bucket, Mount, MountCommand, Scratch, View, expect_errno, files_below, read_range};

use super::Statement;
use super::tree::{EMPTY, Tree};

pub(crate) const STATEMENTS: &[Statement] = statements![
    an_open_file_keeps_its_version,
    an_object_that_was_replaced_is_estale,
    an_object_that_was_deleted_is_estale,
    a_source_that_cannot_be_reached_is_eio,
    a_new_generation_shows_in_a_fuse_view_and_in_the_next_kernel_view,
    an_open_directory_lists_one_generation,
    keys_that_cannot_be_files_are_left_out,
    direct_io_of_an_empty_file_may_be_refused,
];

const SMALL: &str = "dir-000/file-00000";
const LARGE: &str = "large";
const LARGE_BYTES: u64 = 20 << 20;

/// A few small files and a large one, and the command that mounts them.
fn source(view: View) -> (Scratch, Bucket, MountCommand) {
    let scratch = Scratch::new();
    let mut bucket = Bucket::with_files(4, 50_000);
    bucket.generate(LARGE, 1_000, LARGE_BYTES);
    let command = bucket.mount(&scratch, view).with("--deadline", "2s");
    (scratch, bucket, command)
}

/// A mount of them, of which nothing was read.
fn mounted(view: View) -> (Scratch, Bucket, Mount) {
    let (scratch, bucket, command) = source(view);
    let mount = command.mount();
    (scratch, bucket, mount)
}

fn an_open_file_keeps_its_version(tree: &Tree) {
    let (_scratch, mut bucket, mount) = mounted(tree.view());
    let held = File::open(mount.join(SMALL)).unwrap();
    let before = bucket.objects()[SMALL].clone();
    assert!(read_range(&held, 0, before.len()).unwrap() == before);
    bucket.generate(SMALL, 2_000, 60_000);
    mount.succeed(&["refresh"]);
    assert!(read_range(&held, 0, 100_000).unwrap() == before);
    assert_eq!(held.metadata().unwrap().len(), before.len() as u64);
}

fn an_object_that_was_replaced_is_estale(tree: &Tree) {
    let (_scratch, mut bucket, mount) = mounted(tree.view());
    let held = File::open(mount.join(LARGE)).unwrap();
    bucket.generate(LARGE, 2_000, LARGE_BYTES);
    expect_errno(read_range(&held, 0, 10_000), libc::ESTALE, "an open file");
}

fn an_object_that_was_deleted_is_estale(tree: &Tree) {
    let (_scratch, mut bucket, mount) = mounted(tree.view());
    let held = File::open(mount.join(LARGE)).unwrap();
    bucket.delete(LARGE);
    expect_errno(read_range(&held, 0, 10_000), libc::ESTALE, "an open file");
}

fn a_source_that_cannot_be_reached_is_eio(tree: &Tree) {
    let (_scratch, bucket, mount) = mounted(tree.view());
    bucket.check(mount.path(), SMALL);
    bucket.origin().disconnect();
    expect_errno(
        fs::read(mount.join("dir-000/file-00001")),
        libc::EIO,
        "a small file",
    );
    expect_errno(fs::read(mount.join(LARGE)), libc::EIO, "a large file");
    bucket.check(mount.path(), SMALL);
    bucket.origin().reconnect();
    harness::wait_until("the next read to try again", || {
        fs::read(mount.join("dir-000/file-00001")).is_ok()
    });
    bucket.check_all(mount.path());
}

/// Replaces one object, deletes one and adds one; then the newest generation is that.
fn change(bucket: &mut Bucket, mount: &Mount) {
    bucket.generate(SMALL, 2_000, 60_000);
    bucket.delete("dir-000/file-00001");
    bucket.generate("new/file", 2_001, 10);
    mount.succeed(&["refresh"]);
}

fn a_new_generation_shows_in_a_fuse_view_and_in_the_next_kernel_view(tree: &Tree) {
    let (_scratch, mut bucket, command) = source(tree.view());
    let mount = command.mount();
    mount.succeed(&["warmup"]);
    let before = bucket.objects().clone();
    change(&mut bucket, &mount);
    if tree.view() == View::Kernel {
        let mut listed = files_below(mount.path());
        listed.sort();
        assert_eq!(listed, before.keys().map(PathBuf::from).collect::<Vec<_>>());
        for (key, bytes) in &before {
            assert!(fs::read(mount.join(key)).unwrap() == *bytes, "{key}");
        }
        mount.unmount();
        let mount = command.mount();
        bucket.check_all(mount.path());
    } else {
        bucket.check_all(mount.path());
    }
}

fn an_open_directory_lists_one_generation(tree: &Tree) {
    let (_scratch, mut bucket, mount) = mounted(tree.view());
    let mut held = nix::dir::Dir::open(
        mount.path(),
        nix::fcntl::OFlag::O_DIRECTORY,
        nix::sys::stat::Mode::empty(),
    )
    .unwrap();
    change(&mut bucket, &mount);
    let names: Vec<_> = held
        .iter()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
        .filter(|name| !name.starts_with('.'))
        .collect();
    assert_eq!(names, ["dir-000", LARGE]);
}

fn keys_that_cannot_be_files_are_left_out(tree: &Tree) {
    let scratch = Scratch::new();
    let mut bucket = Bucket::new();
    let long = format!("long/{}", "n".repeat(256));
    let refused = [
        "a//b",
        "/abs",
        "../x",
        "a/./b",
        "./c",
        "d/..",
        "bell\u{7}",
        "dir",
        &long,
    ];
    for key in refused {
        bucket.put(key, "what cannot be shown");
    }
    for key in refused {
        // The origin has them; the tree shall not.
        bucket.forget(key);
    }
    for key in ["a/b", "dir/file", "x", "long/name"] {
        bucket.put(key, format!("this is {key}"));
    }
    let mount = bucket.mount(&scratch, tree.view()).mount();
    bucket.check_all(mount.path());
    let stats = mount.stats();
    let counted: u64 = stats["catalog"]["refused"]
        .as_object()
        .unwrap()
        .values()
        .map(|count| count.as_u64().unwrap())
        .sum();
    assert_eq!(counted, refused.len() as u64, "{}", stats["catalog"]);
}

fn direct_io_of_an_empty_file_may_be_refused(tree: &Tree) {
    let opened = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(tree.join(EMPTY));
    match tree.view() {
        // The catalog's own file is opened, which has no content to do it with.
        View::Kernel => expect_errno(opened, libc::EINVAL, "an empty file"),
        View::Fuse => assert!(opened.is_ok(), "{opened:?}"),
    }
}
