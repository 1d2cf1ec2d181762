//! Tests of a builder's refusals, counts and files.

#![expect(clippy::unwrap_used, reason = "a test panics on failure")]

use std::path::Path;

use millpond_catalog::{BuildOptions, Builder, Catalog, Entry, Error, Owner, Refusal, SourceInfo, Summary};
use millpond_core::{ObjectId, Time, Validator};
use tempfile::TempDir;

fn source(id: &str, prefix: &str, path: &str) -> SourceInfo {
    SourceInfo {
        id: id.to_owned(),
        prefix: prefix.to_owned(),
        path: path.to_owned(),
    }
}

fn entry(source: u16, key: &str, size_bytes: u64) -> Entry {
    let validator = Validator::ETag(format!("\"{key}\""));
    Entry {
        source,
        key: key.to_owned(),
        size_bytes,
        modified: Time { secs: 1, nanos: 0 },
        validator,
    }
}

fn options(directory: &Path, sources: Vec<SourceInfo>) -> BuildOptions {
    BuildOptions {
        sources,
        spill_directory: directory.to_owned(),
        ..BuildOptions::default()
    }
}

fn build(sources: Vec<SourceInfo>, entries: &[Entry]) -> (TempDir, Summary, Catalog) {
    let directory = tempfile::tempdir().unwrap();
    let mut builder = Builder::new(options(directory.path(), sources)).unwrap();
    entries.iter().for_each(|entry| builder.add(entry).unwrap());
    let [image, index] = ["image", "index"].map(|name| directory.path().join(name));
    let summary = builder.finish(&image, &index).unwrap();
    let catalog = Catalog::open(&image, &index).unwrap();
    (directory, summary, catalog)
}

fn one() -> Vec<SourceInfo> {
    vec![source("s3://b", "", "")]
}

#[test]
fn each_object_that_cannot_be_a_file_is_counted_with_its_reason() {
    let long_validator = Entry {
        validator: Validator::ETag("v".repeat(1025)),
        ..entry(0, "validator", 1)
    };
    let older = Entry {
        modified: Time { secs: 0, nanos: 0 },
        ..entry(0, "twice", 7)
    };
    let cases = [
        (Refusal::OutsidePrefix, entry(1, "other/a", 1)),
        (Refusal::EmptyKey, entry(0, "", 1)),
        (Refusal::LeadingSlash, entry(0, "/abs", 1)),
        (Refusal::EmptyComponent, entry(0, "a//b", 1)),
        (Refusal::DotComponent, entry(0, "../x", 1)),
        (Refusal::Nul, entry(0, "nul\0", 1)),
        (Refusal::NameTooLong, entry(0, &"n".repeat(256), 1)),
        (Refusal::PathTooLong, entry(0, &"long/".repeat(900), 0)),
        (Refusal::DirectoryWithContent, entry(0, "content/", 1)),
        (Refusal::ValidatorTooLong, long_validator),
        (Refusal::ObjectTooLarge, entry(0, "huge", (1 << 50) + 1)),
        (Refusal::IsDirectory, entry(0, "dir", 1)),
        (Refusal::Duplicate, older),
        (Refusal::Duplicate, entry(1, "pre/first", 3)),
    ];
    let mut entries: Vec<Entry> = cases.iter().map(|(_, entry)| entry.clone()).collect();
    entries.extend([
        entry(0, "dir/file", 1),
        entry(0, "twice", 8),
        entry(0, "first", 2),
    ]);
    let (_directory, summary, catalog) = build(
        vec![source("s3://b", "", ""), source("s3://c", "pre/", "")],
        &entries,
    );

    assert_eq!((summary.files, summary.dirs, summary.bytes), (3, 2, 11));
    for (reason, entry) in &cases {
        let expected = if *reason == Refusal::Duplicate { 2 } else { 1 };
        assert_eq!(summary.refused.counts.get(reason), Some(&expected), "{reason:?}");
        let mut samples = summary
            .refused
            .samples
            .iter()
            .filter(|sample| sample.reason == *reason);
        assert!(
            samples.any(|sample| sample.source == entry.source && entry.key.starts_with(&sample.key)),
            "{reason:?}: {:?}",
            summary.refused.samples
        );
    }
    assert_eq!(summary.refused.samples.len(), cases.len());
    let root = catalog.image().root();
    let first = catalog.image().lookup(root, b"first").unwrap().unwrap();
    assert_eq!(
        catalog.image().inode(first.nid).unwrap().size_bytes,
        2,
        "the first source wins"
    );
    let twice = catalog.image().lookup(root, b"twice").unwrap().unwrap();
    assert_eq!(
        catalog.image().inode(twice.nid).unwrap().size_bytes,
        8,
        "the newer version wins"
    );
}

#[test]
fn a_refused_key_never_hides_another() {
    let keys = ["a/../b", "a//c", "a", "a/x", "./b", "b"];
    let entries: Vec<Entry> = keys.iter().map(|key| entry(0, key, 1)).collect();
    let (_directory, summary, catalog) = build(one(), &entries);
    assert_eq!(summary.files, 2);
    let root = catalog.image().root();
    let a = catalog.image().lookup(root, b"a").unwrap().unwrap();
    assert!(catalog.image().lookup(a.nid, b"x").unwrap().is_some());
    assert!(catalog.image().lookup(root, b"b").unwrap().is_some());
}

#[test]
fn an_object_of_a_bucket_mounted_twice_has_two_places() {
    let sources = vec![source("s3://b", "", "one"), source("s3://b", "", "two")];
    let (_directory, _, catalog) = build(sources, &[entry(0, "k", 5), entry(1, "k", 5), entry(1, "l", 5)]);
    let wanted = entry(0, "k", 5);
    let id = ObjectId::derive("s3://b", "k", &wanted.validator, 5);
    let places: Vec<_> = catalog.index().find(id).collect();
    let described: Vec<_> = places
        .iter()
        .map(|place| catalog.describe(*place).unwrap())
        .collect();
    assert_eq!(
        described.iter().map(|object| object.source).collect::<Vec<_>>(),
        [0, 1]
    );
    assert!(
        described
            .iter()
            .all(|object| object.id == id && object.key == "k")
    );
    assert_eq!(catalog.find(id), places.first().copied());
    assert_eq!(catalog.index().len(), 3);
}

#[test]
fn an_unknown_object_has_no_place() {
    let entries: Vec<Entry> = (0..100)
        .map(|number| entry(0, &format!("k{number}"), number))
        .collect();
    let (_directory, _, catalog) = build(one(), &entries);
    for id in [[0; 16], [255; 16], [128; 16]] {
        assert_eq!(catalog.find(ObjectId::from_bytes(id)), None);
    }
    assert!(catalog.index().iter().is_sorted());
    for (id, place) in catalog.index().iter() {
        assert_eq!(catalog.find(id), Some(place));
        assert_eq!(catalog.index().starting_at(id).next(), Some((id, place)));
        assert_eq!(catalog.image().object_id(place.inode).unwrap(), id);
    }
}

#[test]
fn a_source_without_objects_is_an_empty_directory() {
    let (_directory, summary, catalog) = build(vec![source("s3://b", "p/", "x/y")], &[]);
    assert_eq!((summary.files, summary.dirs), (0, 3));
    assert!(catalog.index().is_empty());
    let x = catalog
        .image()
        .lookup(catalog.image().root(), b"x")
        .unwrap()
        .unwrap();
    let y = catalog.image().lookup(x.nid, b"y").unwrap().unwrap();
    assert_eq!(catalog.image().read_dir(y.nid, 0).unwrap().count(), 2);
}

#[test]
fn options_that_contradict_the_format_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let good = || options(directory.path(), one());
    let set_id = Owner {
        file_mode: 0o4444,
        ..Owner::default()
    };
    for options in [
        options(directory.path(), Vec::new()),
        options(directory.path(), vec![source("s3://b", "no-slash", "")]),
        options(directory.path(), vec![source("s3://b", "", "../up")]),
        options(directory.path(), vec![source("s3://b", "", "/abs")]),
        options(directory.path(), vec![source("s3://b", "", "a/")]),
        options(directory.path(), vec![source(&"u".repeat(4097), "", "")]),
        options(directory.path(), vec![source("s3://b", "", ""); 1025]),
        BuildOptions {
            owner: set_id,
            ..good()
        },
    ] {
        assert!(matches!(Builder::new(options), Err(Error::Options(_))));
    }
    let mut builder = Builder::new(good()).unwrap();
    assert!(matches!(builder.add(&entry(1, "k", 1)), Err(Error::Options(_))));
}

#[test]
fn a_failure_leaves_no_file_and_no_half_catalog() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    std::fs::write(&image, b"previous file").unwrap();
    let mut builder = Builder::new(options(directory.path(), one())).unwrap();
    builder.add(&entry(0, "k", 1)).unwrap();
    let failed = builder.finish(&image, &directory.path().join("no/index"));
    assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    assert_eq!(std::fs::read(&image).unwrap(), b"previous file");
}

#[test]
fn an_index_of_another_image_is_refused() {
    let (first, ..) = build(one(), &[entry(0, "a", 1)]);
    let (second, ..) = build(one(), &[entry(0, "b", 1)]);
    let opened = Catalog::open(&first.path().join("image"), &second.path().join("index"));
    assert!(matches!(opened, Err(Error::Corrupt { .. })), "{opened:?}");
}
