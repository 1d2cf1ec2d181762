//! fio, an outside program, writes files with checksums in them, a source serves them, and fio reads them through both views
//! and checks every block: from our own origin and from a real S3 server that got them through its API; sequentially, at random,
//! mapped, direct, by several jobs; what is not in the cache and what is.

use std::path::Path;
use std::process::Command;

use harness::{Mount, MountCommand, S3Server, Scratch, View};
use origin::{Client, Origin, OriginOptions};

const BUCKET: &str = "fio";

/// Names and sizes in KiB: above the limit for small objects, below it, one block.
const FILES: [(&str, u64); 5] = [
    ("large", 40 << 10),
    ("shards/one", 1 << 10),
    ("shards/two", 1 << 10),
    ("shards/three", 3 << 10),
    ("one-block", 64),
];

/// A way to read; fio's words for it.
struct Pattern {
    name: &'static str,
    words: &'static [&'static str],
    /// Also of what is not in the cache. (fio maps files shared, which a file that is being fetched need not allow.)
    cold: bool,
}

const PATTERNS: [Pattern; 6] = [
    Pattern {
        name: "sequential",
        words: &["--rw=read", "--ioengine=psync"],
        cold: true,
    },
    Pattern {
        name: "random",
        words: &["--rw=randread", "--ioengine=psync"],
        cold: true,
    },
    Pattern {
        name: "random, direct",
        words: &["--rw=randread", "--ioengine=psync", "--direct=1"],
        cold: true,
    },
    Pattern {
        name: "sequential, direct, 16 at once",
        words: &["--rw=read", "--ioengine=libaio", "--iodepth=16", "--direct=1"],
        cold: true,
    },
    Pattern {
        name: "random, four jobs",
        words: &["--rw=randread", "--ioengine=psync", "--numjobs=4"],
        cold: true,
    },
    Pattern {
        name: "random, mapped",
        words: &["--rw=randread", "--ioengine=mmap"],
        cold: false,
    },
];

/// Runs fio on all files below `root` at once. What it says is the error, if it does not end well.
fn fio(scratch: &Scratch, root: &Path, words: &[&str]) -> Result<(), String> {
    let mut command = Command::new("fio");
    command
        // It leaves files where it runs.
        .current_dir(scratch.path())
        .args(["--bs=64k", "--verify=crc32c", "--verify_state_save=0", "--thread"])
        .args(words);
    for (name, kib) in FILES {
        command
            .arg(format!("--name={name}"))
            .arg(format!("--filename={}", root.join(name).display()))
            .arg(format!("--size={kib}k"));
    }
    let output = command.output().expect("run fio: scripts/deps installs it");
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{words:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

/// Has fio write the files below `directory`.
fn write_files(scratch: &Scratch, directory: &Path) {
    std::fs::create_dir(directory.join("shards")).expect("make a directory");
    fio(
        scratch,
        directory,
        &["--rw=write", "--ioengine=psync", "--do_verify=0"],
    )
    .unwrap_or_else(|said| panic!("{said}"));
}

fn verify(scratch: &Scratch, root: &Path, pattern: &Pattern) -> Result<(), String> {
    let words = [pattern.words, &["--readonly", "--verify_fatal=1"]].concat();
    fio(scratch, root, &words)
}

fn check(scratch: &Scratch, mount: &Mount, view: View, pattern: &Pattern) {
    if pattern.cold {
        verify(scratch, mount.path(), pattern)
            .unwrap_or_else(|said| panic!("{view:?}, {}, cold: {said}", pattern.name));
    }
    mount.succeed(&["warmup"]);
    verify(scratch, mount.path(), pattern)
        .unwrap_or_else(|said| panic!("{view:?}, {}, cached: {said}", pattern.name));
}

/// Every pattern on mounts of its own of the source that `command` names.
fn check_all(scratch: &Scratch, command: impl Fn(&Scratch, View) -> MountCommand) {
    for view in View::BOTH {
        for pattern in &PATTERNS {
            let own = Scratch::new();
            let mount = command(&own, view).mount();
            check(scratch, &mount, view, pattern);
            mount.unmount();
        }
    }
}

#[test]
fn fio_finds_a_wrong_byte() {
    // Or the other tests would show nothing.
    let scratch = Scratch::new();
    let data = scratch.directory("data");
    write_files(&scratch, &data);
    for pattern in &PATTERNS {
        verify(&scratch, &data, pattern).unwrap_or_else(|said| panic!("{}: {said}", pattern.name));
    }
    let path = data.join("large");
    let mut bytes = std::fs::read(&path).expect("read a file");
    let middle = bytes.len() / 2 + 12_345;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).expect("write a file");
    for pattern in &PATTERNS {
        assert!(verify(&scratch, &data, pattern).is_err(), "{}", pattern.name);
    }
}

#[test]
fn fio_verifies_what_our_origin_serves() {
    let scratch = Scratch::new();
    let data = scratch.directory("data");
    write_files(&scratch, &data);
    let origin = Origin::spawn(OriginOptions::default()).expect("start the origin");
    origin.create_bucket(BUCKET);
    for (name, _) in FILES {
        origin.put(BUCKET, name, std::fs::read(data.join(name)).expect("read a file"));
    }
    check_all(&scratch, |own, view| {
        MountCommand::new(own, &format!("s3://{BUCKET}"), view)
            .with("--endpoint", origin.url())
            .switch("--anonymous")
    });
}

#[test]
fn fio_verifies_what_versitygw_serves() {
    let scratch = Scratch::new();
    let data = scratch.directory("data");
    write_files(&scratch, &data);
    let server =
        S3Server::start(&scratch.directory("buckets"), scratch.join("access.log")).expect("start versitygw");
    let client = Client::new(server.url(), Some(server.credentials().clone()));
    let runtime = tokio::runtime::Runtime::new().expect("start a runtime");
    runtime.block_on(async {
        let made = client.create_bucket(BUCKET).await.expect("make a bucket");
        assert!(made.status.is_success(), "{made:?}");
        for (name, _) in FILES {
            let bytes = std::fs::read(data.join(name)).expect("read a file");
            let put = client.put(BUCKET, name, bytes).await.expect("put an object");
            assert!(put.status.is_success(), "{put:?}");
        }
    });
    check_all(&scratch, |own, view| server.mount(own, BUCKET, view));
}
