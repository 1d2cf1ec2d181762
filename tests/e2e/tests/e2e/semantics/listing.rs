//! Names, attributes and listings.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirEntryExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use harness::{expect_errno, files_below};

use super::Statement;
use super::tree::{EMPTY, LARGE, LARGE_BYTES, MANY, MANY_FILES, SMALL, SMALL_BYTES, Tree};

pub(crate) const STATEMENTS: &[Statement] = statements![
    lists_what_the_source_has,
    directories_are_the_prefixes_of_keys,
    a_large_directory_lists_each_name_once,
    a_listing_goes_on_where_it_was_left,
    listings_tell_types_and_inodes,
    sizes_are_the_objects_sizes,
    times_are_the_objects_modification_times,
    owner_and_modes_are_as_mounted,
    inode_numbers_stay,
    names_are_case_sensitive,
    names_may_hold_any_character_of_a_file_name,
    names_reach_255_bytes,
    a_missing_name_is_enoent,
    a_file_is_no_directory,
    a_directory_cannot_be_read_as_a_file,
    files_have_one_link,
    everything_is_a_file_or_a_directory,
    dot_and_dot_dot_lead_where_they_should,
    statfs_tells_the_datasets_size,
    an_xattr_names_the_etag,
    an_xattr_names_the_source,
    xattrs_can_be_listed,
    an_unknown_xattr_is_enodata,
    a_short_xattr_buffer_is_erange,
    directories_have_no_xattrs_of_objects,
];

fn lists_what_the_source_has(tree: &Tree) {
    let listed: Vec<_> = files_below(tree.root())
        .into_iter()
        .map(|path| path.to_str().unwrap().to_owned())
        .collect();
    let mut expected: Vec<_> = tree.objects().keys().cloned().collect();
    expected.sort_by(|a, b| Path::new(a).cmp(Path::new(b)));
    assert_eq!(listed, expected);
}

fn directories_are_the_prefixes_of_keys(tree: &Tree) {
    let names: BTreeSet<_> = fs::read_dir(tree.root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected: BTreeSet<_> = tree
        .objects()
        .keys()
        .map(|key| key.split('/').next().unwrap().to_owned())
        .collect();
    assert_eq!(names, expected);
}

fn a_large_directory_lists_each_name_once(tree: &Tree) {
    let names: Vec<_> = fs::read_dir(tree.join(MANY))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), MANY_FILES);
    assert_eq!(names.into_iter().collect::<BTreeSet<_>>().len(), MANY_FILES);
}

fn a_listing_goes_on_where_it_was_left(tree: &Tree) {
    let mut directory = nix::dir::Dir::open(
        &tree.join(MANY),
        nix::fcntl::OFlag::O_RDONLY,
        nix::sys::stat::Mode::empty(),
    )
    .unwrap();
    let first: Vec<_> = directory
        .iter()
        .take(1_000)
        .map(|entry| entry.unwrap().file_name().to_owned())
        .collect();
    // Another reader of the same directory does not move this one.
    assert_eq!(fs::read_dir(tree.join(MANY)).unwrap().count(), MANY_FILES);
    let again: Vec<_> = directory
        .iter()
        .map(|entry| entry.unwrap().file_name().to_owned())
        .collect();
    assert_eq!(
        again.len(),
        MANY_FILES + 2,
        "a new iterator starts from the first entry"
    );
    assert_eq!(&again[..first.len()], &first[..]);
}

fn listings_tell_types_and_inodes(tree: &Tree) {
    for entry in fs::read_dir(tree.root()).unwrap() {
        let entry = entry.unwrap();
        let metadata = fs::symlink_metadata(entry.path()).unwrap();
        assert_eq!(
            entry.file_type().unwrap(),
            metadata.file_type(),
            "{:?}",
            entry.path()
        );
        assert_eq!(entry.ino(), metadata.ino(), "{:?}", entry.path());
    }
}

fn sizes_are_the_objects_sizes(tree: &Tree) {
    for (key, size) in [(SMALL, SMALL_BYTES), (LARGE, LARGE_BYTES), (EMPTY, 0)] {
        assert_eq!(fs::metadata(tree.join(key)).unwrap().len(), size as u64, "{key}");
    }
}

fn times_are_the_objects_modification_times(tree: &Tree) {
    let now = std::time::SystemTime::now();
    let metadata = fs::metadata(tree.join(SMALL)).unwrap();
    let age = now
        .duration_since(metadata.modified().unwrap())
        .expect("not in the future");
    assert!(age.as_secs() < 3_600, "the object was put a moment ago: {age:?}");
}

fn owner_and_modes_are_as_mounted(tree: &Tree) {
    for (path, mode) in [
        (tree.join(SMALL), 0o444),
        (tree.join("train"), 0o555),
        (tree.root().to_owned(), 0o555),
    ] {
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, mode, "{}", path.display());
        assert_eq!(
            (metadata.uid(), metadata.gid()),
            (1234, 2345),
            "{}",
            path.display()
        );
    }
}

fn inode_numbers_stay(tree: &Tree) {
    let before = fs::metadata(tree.join("train/n01443537/img_1.jpg"))
        .unwrap()
        .ino();
    fs::read(tree.join("train/n01443537/img_1.jpg")).unwrap();
    assert_eq!(
        fs::metadata(tree.join("train/n01443537/img_1.jpg"))
            .unwrap()
            .ino(),
        before
    );
}

fn names_are_case_sensitive(tree: &Tree) {
    assert_eq!(fs::read(tree.join("README")).unwrap(), tree.bytes("README"));
    assert_eq!(fs::read(tree.join("readme")).unwrap(), tree.bytes("readme"));
    expect_errno(fs::metadata(tree.join("ReadMe")), libc::ENOENT, "another case");
}

fn names_may_hold_any_character_of_a_file_name(tree: &Tree) {
    let key = "names/\u{fc}n\u{ef}c\u{f6}d\u{e9} & space,comma:colon";
    assert_eq!(fs::read(tree.join(key)).unwrap(), tree.bytes(key));
}

fn names_reach_255_bytes(tree: &Tree) {
    let key = format!("names/{}", "n".repeat(255));
    assert_eq!(fs::read(tree.join(&key)).unwrap(), tree.bytes(&key));
    expect_errno(
        fs::metadata(tree.join(&format!("names/{}", "n".repeat(256)))),
        libc::ENAMETOOLONG,
        "256 bytes",
    );
}

fn a_missing_name_is_enoent(tree: &Tree) {
    for name in ["nothing", "train/nothing", "nothing/below"] {
        expect_errno(fs::metadata(tree.join(name)), libc::ENOENT, name);
        expect_errno(fs::File::open(tree.join(name)), libc::ENOENT, name);
    }
}

fn a_file_is_no_directory(tree: &Tree) {
    expect_errno(
        fs::metadata(tree.join(SMALL).join("below")),
        libc::ENOTDIR,
        "a name below a file",
    );
    expect_errno(fs::read_dir(tree.join(SMALL)), libc::ENOTDIR, "listing a file");
}

fn a_directory_cannot_be_read_as_a_file(tree: &Tree) {
    expect_errno(fs::read(tree.join("train")), libc::EISDIR, "reading a directory");
}

fn files_have_one_link(tree: &Tree) {
    fs::read(tree.join(SMALL)).unwrap();
    assert_eq!(fs::metadata(tree.join(SMALL)).unwrap().nlink(), 1);
}

fn everything_is_a_file_or_a_directory(tree: &Tree) {
    let mut pending = vec![tree.root().to_owned()];
    while let Some(path) = pending.pop() {
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        assert!(!kind.is_symlink() && !kind.is_socket() && !kind.is_fifo() && !kind.is_block_device());
        if kind.is_dir() && !path.ends_with(MANY) {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
}

fn dot_and_dot_dot_lead_where_they_should(tree: &Tree) {
    let root = fs::metadata(tree.root()).unwrap();
    for path in ["train/..", "train/n01440764/../..", "."] {
        let found = fs::metadata(tree.join(path)).unwrap();
        assert_eq!((found.dev(), found.ino()), (root.dev(), root.ino()), "{path}");
    }
}

fn statfs_tells_the_datasets_size(tree: &Tree) {
    let statistics = nix::sys::statvfs::statvfs(tree.root()).unwrap();
    let data: u64 = tree.objects().values().map(|bytes| bytes.len() as u64).sum();
    let shown = statistics.blocks() * statistics.fragment_size();
    assert!(
        shown >= data && shown <= data + (tree.objects().len() as u64 + 1_000) * 4_096,
        "{shown} of {data}"
    );
    assert_eq!(statistics.blocks_available(), 0, "nothing can be written");
    assert_eq!(statistics.name_max(), 255);
    assert!(statistics.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY));
}

fn xattr(path: &Path, name: &str) -> io::Result<Vec<u8>> {
    let mut value = vec![0; 4_096];
    let length = rustix::fs::getxattr(path, name, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}

fn an_xattr_names_the_etag(tree: &Tree) {
    let value = String::from_utf8(xattr(&tree.join("README"), "user.millpond.etag").unwrap()).unwrap();
    assert_eq!(value.trim_matches('"'), tree.readme_etag().trim_matches('"'));
}

fn an_xattr_names_the_source(tree: &Tree) {
    let value = String::from_utf8(xattr(&tree.join(SMALL), "user.millpond.source").unwrap()).unwrap();
    assert!(value.starts_with("s3://data"), "{value}");
}

fn xattrs_can_be_listed(tree: &Tree) {
    let mut names = vec![0; 4_096];
    let length = rustix::fs::listxattr(tree.join(SMALL), &mut names[..]).unwrap();
    let names: BTreeSet<_> = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .collect();
    assert!(names.contains(&b"user.millpond.etag"[..]), "{names:?}");
    assert!(names.contains(&b"user.millpond.source"[..]), "{names:?}");
    assert!(
        !names.iter().any(|name| name.starts_with(b"trusted.overlay")),
        "{names:?}"
    );
}

fn an_unknown_xattr_is_enodata(tree: &Tree) {
    expect_errno(
        xattr(&tree.join(SMALL), "user.nothing"),
        libc::ENODATA,
        "an unknown xattr",
    );
}

fn a_short_xattr_buffer_is_erange(tree: &Tree) {
    let mut short = [0; 2];
    let result = rustix::fs::getxattr(tree.join(SMALL), "user.millpond.etag", &mut short[..]);
    expect_errno(result.map_err(io::Error::from), libc::ERANGE, "a short buffer");
}

fn directories_have_no_xattrs_of_objects(tree: &Tree) {
    expect_errno(
        xattr(&tree.join("train"), "user.millpond.etag"),
        libc::ENODATA,
        "a directory's etag",
    );
}
