//! Tests with random listings: written, and read back through the kernel and through the reader.

use std::path::Path;

use millpond_catalog::{BuildOptions, Builder, Catalog, Entry, Owner, SourceInfo, Summary, check};
use millpond_core::{Time, Validator};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::mounted::{Mounted, fsck};
use super::tree::{expected, os_path, refused, through_the_kernel, through_the_reader, without_places};

const CREATED: Time = Time {
    secs: 1_700_000_000,
    nanos: 123_456_789,
};
const OWNER: Owner = Owner {
    uid: 1234,
    gid: 70_000,
    file_mode: 0o440,
    dir_mode: 0o751,
};

fn sources() -> Vec<SourceInfo> {
    let source = |id: &str, prefix: &str, path: &str| SourceInfo {
        id: id.to_owned(),
        prefix: prefix.to_owned(),
        path: path.to_owned(),
    };
    vec![
        source("s3://bucket", "", ""),
        source("s3://other/pre/", "pre/", "a/mounted"),
        source(&format!("https://host/{}", "long/".repeat(700)), "", "b"),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[ab]{1,2}",
        4 => "[ -~]{1,12}".prop_map(|name| name.replace('/', "_")),
        2 => "\\PC{1,60}".prop_map(|name| name.replace('/', "_")),
        2 => "[\u{1}-\u{1f}\u{7f}-\u{9f}!-.]{1,6}".prop_map(|name| name.replace('/', "_")),
        1 => (200..256usize, "[a-z]").prop_map(|(length, letter)| letter.repeat(length)),
        1 => select(vec!["", ".", "..", "...", ".a", "..a", "a\0b", "-", " ", "é"]).prop_map(str::to_owned),
        1 => (256..300usize).prop_map(|length| "x".repeat(length)),
    ]
}

fn key() -> impl Strategy<Value = String> {
    let deep = (1..400usize, name()).prop_map(|(depth, name)| format!("{}{name}", "d/".repeat(depth)));
    let usual =
        (vec(name(), 1..5), any::<bool>(), any::<bool>()).prop_map(|(names, is_below, is_directory)| {
            let prefix = if is_below { "pre/" } else { "" };
            let slash = if is_directory && names.len() > 1 { "/" } else { "" };
            format!("{prefix}{}{slash}", names.join("/"))
        });
    prop_oneof![12 => usual, 1 => deep, 1 => Just("pre/".to_owned()), 1 => Just(String::new())]
}

fn time() -> impl Strategy<Value = Time> {
    let secs = prop_oneof![
        0..4_000_000_000i64,
        -4_000_000_000..0i64,
        Just(i64::MAX),
        Just(i64::MIN)
    ];
    (secs, 0..1_000_000_000u32).prop_map(|(secs, nanos)| Time { secs, nanos })
}

fn entry() -> impl Strategy<Value = Entry> {
    let size = prop_oneof![
        Just(0u64),
        1..1_000_000u64,
        Just(1 << 43),
        Just((1 << 43) + 1),
        Just(1 << 50)
    ];
    let validator = prop_oneof![
        "\"[0-9a-f]{32}\"".prop_map(Validator::ETag),
        "\\PC{0,200}".prop_map(Validator::ETag),
        "[!-~]{0,300}".prop_map(Validator::VersionId),
        time().prop_map(|time| Validator::Modified { time }),
    ];
    (0..3u16, key(), size, time(), validator).prop_map(|(source, key, size_bytes, modified, validator)| {
        Entry {
            source,
            key,
            size_bytes,
            modified,
            validator,
        }
    })
}

/// Returns entries of which no two are versions of one key with the same time.
fn listing(count: usize) -> impl Strategy<Value = Vec<Entry>> {
    vec(entry(), 0..count).prop_map(|mut entries| {
        let mut seen = std::collections::BTreeSet::new();
        entries.retain(|entry| seen.insert((entry.source, entry.key.clone(), entry.modified)));
        entries
    })
}

fn build<'a>(
    directory: &Path,
    name: &str,
    memory_bytes: usize,
    entries: impl Iterator<Item = &'a Entry>,
) -> Summary {
    let spill_directory = directory.to_owned();
    let options = BuildOptions {
        sources: sources(),
        owner: OWNER,
        created: CREATED,
        spill_directory,
        memory_bytes,
    };
    let mut builder = Builder::new(options).unwrap();
    entries.for_each(|entry| builder.add(entry).unwrap());
    let [image, index] = ["erofs", "index"].map(|kind| directory.join(format!("{name}.{kind}")));
    builder.finish(&image, &index).unwrap()
}

/// Writes a listing and compares all its readers.
fn round_trip(entries: &[Entry]) -> Result<(), TestCaseError> {
    let directory = tempfile::tempdir().unwrap();
    let [image, index] = ["a.erofs", "a.index"].map(|name| directory.path().join(name));
    let summary = build(directory.path(), "a", 0, entries.iter());
    prop_assert_eq!(
        std::fs::read_dir(directory.path()).unwrap().count(),
        2,
        "nothing else is left behind"
    );

    fsck(&image);
    let (expected, lost) = expected(&sources(), entries, OWNER, CREATED);
    let mounted = Mounted::new(&image);
    let by_kernel = through_the_kernel(mounted.path());
    let catalog = Catalog::open(&image, &index).unwrap();
    let by_reader = through_the_reader(&catalog);
    prop_assert_eq!(&by_kernel, &by_reader);
    for (path, node) in &by_kernel {
        let is_file = node.mode & 0o40_000 == 0;
        prop_assert_eq!(&image_xattr(&catalog, node.nid), &is_file);
        prop_assert!(mounted.path().join(os_path(path)).symlink_metadata().is_ok());
    }
    prop_assert_eq!(without_places(by_kernel), expected.clone());

    let files = expected.values().filter(|node| node.mode & 0o40_000 == 0);
    let bytes: u64 = files.clone().map(|node| node.size_bytes).sum();
    prop_assert_eq!((summary.files, summary.bytes), (files.count() as u64, bytes));
    prop_assert_eq!(summary.dirs + summary.files, expected.len() as u64);
    prop_assert_eq!(refused(&summary.refused.counts), lost);
    prop_assert_eq!(catalog.index().summary(), &summary);
    let statfs = rustix::fs::statfs(mounted.path()).unwrap();
    prop_assert_eq!(statfs.f_blocks, bytes.div_ceil(4096).min(u32::MAX.into()));

    for (id, place) in catalog.index().iter() {
        let object = catalog.describe(place).unwrap();
        prop_assert_eq!(object.id, id);
        let listed = entries.iter().any(|entry| {
            (entry.source, &entry.key, entry.size_bytes) == (object.source, &object.key, object.size_bytes)
                && (&entry.validator, entry.modified) == (&object.validator, object.modified)
        });
        prop_assert!(listed, "{:?}", object);
    }
    prop_assert_eq!(check(&image, &index, directory.path()).unwrap(), summary);
    Ok(())
}

fn image_xattr(catalog: &Catalog, nid: u64) -> bool {
    catalog
        .image()
        .xattr(millpond_catalog::Nid(nid), b"user.millpond.etag")
        .unwrap()
        .is_some()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_random_tree_reads_back_through_the_kernel(entries in listing(120)) {
        round_trip(&entries)?;
    }

    #[test]
    fn the_order_of_a_listing_leaves_no_trace(
        (entries, shuffled) in listing(80).prop_flat_map(|entries| (Just(entries.clone()), Just(entries).prop_shuffle()))
    ) {
        let directory = tempfile::tempdir().unwrap();
        let first = build(directory.path(), "a", 0, entries.iter());
        let second = build(directory.path(), "b", 1, shuffled.iter());
        prop_assert_eq!(first, second);
        for kind in ["erofs", "index"] {
            let [a, b] = ["a", "b"].map(|name| std::fs::read(directory.path().join(format!("{name}.{kind}"))).unwrap());
            prop_assert!(a == b, "the {} differs", kind);
        }
    }
}

#[test]
fn an_empty_listing_is_an_empty_directory() {
    round_trip(&[]).unwrap();
}

#[test]
fn a_directory_of_many_blocks_reads_back_through_the_kernel() {
    let entries: Vec<Entry> = (0..5000u32)
        .map(|number| Entry {
            source: 0,
            // Various lengths, and names that sort before and after the dots.
            key: format!(
                "many/{}{number}",
                ["", "!", "-", "name-", &"long".repeat(50)][number as usize % 5]
            ),
            size_bytes: number.into(),
            modified: Time {
                secs: number.into(),
                nanos: number,
            },
            validator: Validator::ETag(format!("\"{number:032x}\"")),
        })
        .collect();
    round_trip(&entries).unwrap();
}
