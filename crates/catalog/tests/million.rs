//! Memory and disk for a million files. The only test of its binary, so that the process's peak is the test's.

#![expect(clippy::unwrap_used, reason = "a test panics on failure")]

use std::path::Path;

use millpond_catalog::{BuildOptions, Builder, Catalog, Entry, SourceInfo, check};
use millpond_core::{Time, Validator};

const FILES: u64 = 1_000_000;
/// The project's limit for listing a million files.
const MEMORY_MAX_BYTES: u64 = 200 << 20;
/// The project's limit of disk bytes for a file beyond its name.
const FILE_MAX_BYTES: u64 = 240;

/// Half of the files are in one directory and half in directories of 500; they are unordered.
fn key(number: u64) -> String {
    // 7919 is prime to a million: each number occurs once.
    let number = number * 7919 % FILES;
    if number.is_multiple_of(2) {
        format!("train/flat/n{number:08}.jpg")
    } else {
        format!("train/class-{:04}/n{number:08}.jpg", number / 1000)
    }
}

const NAME_BYTES: u64 = "n00000000.jpg".len() as u64;

fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

fn build(directory: &Path, image: &Path, index: &Path) {
    let options = BuildOptions {
        sources: vec![SourceInfo {
            id: "s3://imagenet/train".to_owned(),
            ..SourceInfo::default()
        }],
        spill_directory: directory.to_owned(),
        ..BuildOptions::default()
    };
    let mut builder = Builder::new(options).unwrap();
    for number in 0..FILES {
        let entry = Entry {
            source: 0,
            key: key(number),
            size_bytes: 100_000 + number,
            modified: Time {
                secs: 1_700_000_000,
                nanos: 0,
            },
            // In S3's form, of the length that a large object's has.
            validator: Validator::ETag(format!("\"{number:032x}-12\"")),
        };
        builder.add(&entry).unwrap();
    }
    let summary = builder.finish(image, index).unwrap();
    assert_eq!((summary.files, summary.dirs), (FILES, 1003));
}

#[test]
fn a_million_files_stay_within_their_memory_and_disk() {
    let directory = tempfile::tempdir().unwrap();
    let [image, index] = ["image", "index"].map(|name| directory.path().join(name));
    let start = std::time::Instant::now();
    build(directory.path(), &image, &index);
    let peak = peak_bytes();
    let length = |path: &Path| std::fs::metadata(path).unwrap().len();
    let on_disk = length(&image) + length(&index);
    let each = (on_disk - FILES * NAME_BYTES) / FILES;
    println!(
        "{} MiB at peak, {each} bytes a file beyond its name, {:?}",
        peak >> 20,
        start.elapsed()
    );
    assert!(peak <= MEMORY_MAX_BYTES, "{} MiB", peak >> 20);
    assert!(each <= FILE_MAX_BYTES, "{each} bytes a file");

    let catalog = Catalog::open(&image, &index).unwrap();
    for number in (0..FILES).step_by(9973) {
        let key = key(number);
        let nid = key.split('/').fold(catalog.image().root(), |dir, name| {
            catalog.image().lookup(dir, name.as_bytes()).unwrap().unwrap().nid
        });
        assert_eq!(catalog.image().inode(nid).unwrap().size_bytes, 100_000 + number);
        let place = catalog.find(catalog.image().object_id(nid).unwrap()).unwrap();
        assert_eq!(catalog.describe(place).unwrap().key, key);
    }
    println!("{:?}", start.elapsed());
    drop(catalog);
    check(&image, &index, directory.path()).unwrap();
    println!("{:?}", start.elapsed());
}
