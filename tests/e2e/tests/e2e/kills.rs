//! The mount outlives its server: kills in the middle of verified reads of what is cached and what is not, with files
//! held open across them.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use harness::{Bucket, Role, Scratch, View, read_range, wait_until};
use origin::Fault;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

/// Kills per view: what the project promises to survive.
const KILLS: u32 = 200;
const SMALL: u64 = 60_000;
const LARGE: u64 = 24 << 20;

/// A bucket in which every kill finds objects that no reader has read yet.
fn bucket() -> Bucket {
    let mut bucket = Bucket::with_files(8_000, SMALL);
    for number in 0..6 {
        bucket.generate(&format!("large/{number}"), 10_000 + number, LARGE);
    }
    bucket
}

fn survives_kills(view: View) {
    let scratch = Scratch::new();
    let bucket = bucket();
    // Requests are in flight when the server dies, not between kills.
    bucket.origin().set_latency(Duration::from_millis(5));
    let mount = bucket.mount(&scratch, view).mount();
    let held: Vec<_> = ["dir-000/file-00000", "large/0", "large/1"]
        .into_iter()
        .map(|key| (key, File::open(mount.join(key)).expect("open a file to be held")))
        .collect();
    let stop = AtomicBool::new(false);
    let reads = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for reader in 0..6_u64 {
            let (bucket, mount, stop, reads, held) = (&bucket, &mount, &stop, &reads, &held);
            scope.spawn(move || {
                let keys = bucket.keys();
                let mut random = rand::rngs::StdRng::seed_from_u64(reader);
                while !stop.load(Ordering::Relaxed) {
                    match random.random_range(0..10) {
                        0 | 1 => {
                            let (key, file) = held.choose(&mut random).expect("some are held");
                            check_range(bucket, key, file, &mut random);
                        }
                        2 => {
                            let key = format!("large/{}", random.random_range(0..6));
                            let file = File::open(mount.join(&key))
                                .unwrap_or_else(|error| panic!("open {key}: {error}"));
                            check_range(bucket, &key, &file, &mut random);
                        }
                        _ => {
                            let key = keys.choose(&mut random).expect("there are keys");
                            if !key.starts_with("large/") {
                                bucket.check(mount.path(), key);
                            }
                        }
                    }
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..KILLS {
                let before = reads.load(Ordering::Relaxed);
                // Readers must get on between kills, or nothing is shown.
                wait_until("reads between two kills", || {
                    reads.load(Ordering::Relaxed) > before + 5
                });
                wait_until("a server to kill", || mount.kill_server().is_some());
            }
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = done {
            // Readers that wait for a server would keep the scope from ending.
            bucket.origin().disconnect();
            std::panic::resume_unwind(panic);
        }
    });
    bucket.origin().set_latency(Duration::ZERO);
    bucket.check_all(mount.path());
    for (key, file) in &held {
        let bytes = &bucket.objects()[*key];
        assert!(
            read_range(file, 0, bytes.len()).expect("read a held file") == *bytes,
            "{key}"
        );
    }
    drop(held);
    mount.unmount();
    assert!(scratch.mounts().is_empty(), "{:?}", scratch.mounts());
}

fn check_range(bucket: &Bucket, key: &str, file: &File, random: &mut rand::rngs::StdRng) {
    let bytes = &bucket.objects()[key];
    let offset = random.random_range(0..bytes.len());
    let end = bytes.len().min(offset + random.random_range(1..200_000));
    let found = read_range(file, offset as u64, end - offset)
        .unwrap_or_else(|error| panic!("read {key} at {offset}: {error}"));
    assert!(
        found == bytes[offset..end],
        "{key}: wrong bytes in {offset}..{end}"
    );
}

#[test]
fn the_kernel_view_survives_kills_of_its_server() {
    survives_kills(View::Kernel);
}

#[test]
fn the_fuse_view_survives_kills_of_its_server() {
    survives_kills(View::Fuse);
}

#[test]
fn cached_files_read_on_without_any_process() {
    let scratch = Scratch::new();
    let bucket = Bucket::with_files(100, SMALL);
    let mount = bucket.mount(&scratch, View::Kernel).mount();
    // Before the first lookup, so that every file is the kernel's alone from its first open on.
    mount.succeed(&["warmup"]);
    bucket.check_all(mount.path());
    for process in harness::processes(scratch.path()) {
        process.kill();
    }
    wait_until("all processes to exit", || {
        harness::processes(scratch.path()).is_empty()
    });
    bucket.check_all(mount.path());
    harness::drop_caches();
    bucket.check_all(mount.path());
}

#[test]
fn a_mount_can_be_made_again_where_all_processes_were_killed() {
    for view in View::BOTH {
        let scratch = Scratch::new();
        let bucket = Bucket::with_files(50, SMALL);
        let command = bucket.mount(&scratch, view);
        let mount = command.mount();
        bucket.check_all(mount.path());
        let fetched = bucket.counters().gets;
        for process in harness::processes(scratch.path()) {
            process.kill();
        }
        wait_until("all processes to exit", || {
            harness::processes(scratch.path()).is_empty()
        });
        let again = command.mount();
        bucket.check_all(again.path());
        assert_eq!(
            bucket.counters().gets,
            fetched,
            "{view:?}: what was whole is still whole"
        );
        again.unmount();
        assert!(scratch.mounts().is_empty(), "{view:?}: {:?}", scratch.mounts());
    }
}

#[test]
fn an_upgrade_is_seen_by_no_reader() {
    for view in View::BOTH {
        let scratch = Scratch::new();
        let bucket = Bucket::with_files(600, SMALL);
        let mount = bucket.mount(&scratch, view).mount();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for reader in 0..3 {
                let (bucket, mount, stop) = (&bucket, &mount, &stop);
                scope.spawn(move || {
                    for key in bucket.keys().iter().skip(reader * 200).cycle() {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        bucket.check(mount.path(), key);
                    }
                });
            }
            for _ in 0..5 {
                let before = mount.processes(Role::Server).first().map(|process| process.pid);
                let output = mount.command(&["upgrade"]);
                let after = mount.processes(Role::Server).first().map(|process| process.pid);
                if !output.status.success() || before == after {
                    stop.store(true, Ordering::Relaxed);
                    panic!(
                        "upgrade: {before:?} -> {after:?}: {}",
                        String::from_utf8_lossy(&output.stderr)
                    );
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        bucket.check_all(mount.path());
        mount.unmount();
    }
}

#[test]
fn nothing_hangs_for_ever_where_no_server_comes_up() {
    let scratch = Scratch::new();
    let bucket = Bucket::with_files(10, SMALL);
    let mount = bucket
        .mount(&scratch, View::Fuse)
        .env("UNSTABLE_MILLPOND_SUCCESSOR_LIMIT", "2s")
        .mount();
    bucket.check(mount.path(), "dir-000/file-00000");
    // The reader waits in a GET that gives no byte while every server is killed as soon as it is up.
    let rule = bucket.fail_gets(Fault::Stall { after: 0 });
    let killing = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while killing.load(Ordering::Relaxed) {
                mount.kill_server();
                std::thread::yield_now();
            }
        });
        let result = std::fs::read(mount.join("dir-000/file-00001"));
        killing.store(false, Ordering::Relaxed);
        assert!(
            result.is_err(),
            "a read that no server answers ends with an error"
        );
    });
    bucket.origin().faults().remove(rule);
}
