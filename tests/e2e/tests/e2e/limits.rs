//! A cache smaller than the data: right bytes, useful hit rates, and no byte over the limit at any moment.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::{Bucket, Mount, Scratch, View};
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

const LIMIT: u64 = 48 << 20;

/// Bytes that are taken on a file system: in files under way and in those without a name, too.
fn used(path: &Path) -> u64 {
    let found = nix::sys::statvfs::statvfs(path).expect("the file system's statistics");
    (found.blocks() - found.blocks_free()) * found.fragment_size()
}

/// The same, of a file system that is being written. It counts blocks that are being allocated twice for a moment, as free no
/// more and as reserved yet: what it says counts if it says it in several looks one after the other.
fn used_surely(path: &Path) -> u64 {
    let look = |_| {
        std::thread::yield_now();
        used(path)
    };
    (0..5).map(look).min().expect("five looks")
}

/// The most that is taken on a file system while something is done, looked at all along.
fn highest_use_during(path: &Path, work: impl FnOnce()) -> u64 {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut highest = 0;
            while !over.load(Ordering::Relaxed) {
                highest = highest.max(used_surely(path));
                std::thread::park_timeout(Duration::from_millis(1));
            }
            highest
        });
        // Also when the work fails, or the watching would never end.
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        let highest = watching.join().expect("the watching thread");
        if let Err(panic) = worked {
            std::panic::resume_unwind(panic);
        }
        highest
    })
}

fn holds_its_limit(view: View, eviction: &str) {
    let scratch = Scratch::new();
    let mut bucket = Bucket::with_files(800, 100_000);
    for number in 0..3 {
        bucket.generate(&format!("large/{number}"), 50_000 + number, 9 << 20);
    }
    let disk = scratch.ext4("disk", 256 << 20);
    let empty = used(&disk);
    let highest = highest_use_during(&disk, || {
        let mount = bucket
            .mount(&scratch, view)
            .with("--cache-dir", disk.join("cache"))
            .with("--cache-size", LIMIT.to_string())
            .with("--eviction", eviction)
            .mount();
        for round in 0..4 {
            read_at_random(&bucket, &mount, round);
        }
        bucket.check_all(mount.path());
        mount.unmount();
    });
    let highest = highest - empty;
    assert!(
        highest <= LIMIT,
        "{view:?} {eviction}: {highest} bytes on the disk, {LIMIT} allowed"
    );
    assert!(
        highest > LIMIT / 4 * 3,
        "{view:?} {eviction}: the cache was used: {highest}"
    );
}

/// Four readers at once. Half of the reads go to a tenth of the files, as a working set.
fn read_at_random(bucket: &Bucket, mount: &Mount, round: u64) {
    std::thread::scope(|scope| {
        for reader in 0..4_u64 {
            scope.spawn(move || {
                let keys = bucket.keys();
                let mut random = rand::rngs::StdRng::seed_from_u64(round * 4 + reader);
                for _ in 0..150 {
                    let upper = if random.random_bool(0.5) {
                        keys.len() / 10
                    } else {
                        keys.len()
                    };
                    bucket.check(
                        mount.path(),
                        keys[..upper].choose(&mut random).expect("there are keys"),
                    );
                }
            });
        }
    });
}

#[test]
fn a_cache_that_never_evicts_holds_its_limit() {
    for view in View::BOTH {
        holds_its_limit(view, "never");
    }
}

#[test]
fn an_lru_cache_holds_its_limit() {
    for view in View::BOTH {
        holds_its_limit(view, "lru");
    }
}

#[test]
fn a_tinylfu_cache_holds_its_limit() {
    for view in View::BOTH {
        holds_its_limit(view, "tinylfu");
    }
}

#[test]
fn a_hot_set_stays_while_a_scan_passes() {
    for view in View::BOTH {
        let scratch = Scratch::new();
        let bucket = Bucket::with_files(1_000, 100_000);
        let mount = bucket
            .mount(&scratch, view)
            .with("--cache-size", LIMIT.to_string())
            .with("--eviction", "lru")
            .mount();
        let keys = bucket.keys();
        let (hot, cold) = keys.split_at(100);
        let mut missed = 0;
        for part in cold.chunks(100) {
            let before = bucket.counters();
            for key in hot {
                bucket.check(mount.path(), key);
            }
            let after = bucket.counters();
            missed += hot
                .iter()
                .map(|key| after.key("data", key).gets - before.key("data", key).gets)
                .sum::<u64>();
            for key in part {
                bucket.check(mount.path(), key);
            }
        }
        // Read 9 times each; fetched once, and seldom again: what the kernel serves counts as used too.
        assert!(
            missed <= 300,
            "{view:?}: the hot files were fetched {missed} times in 900 reads"
        );
        mount.unmount();
    }
}

/// Holds 50 files open that are not read, reads all others, and requires that the held ones were not
/// fetched again. `disturb` is called before and in the middle.
fn keeps_what_is_open(view: View, disturb: impl Fn(&Mount)) {
    let scratch = Scratch::new();
    let bucket = Bucket::with_files(1_000, 100_000);
    let mount = bucket
        .mount(&scratch, view)
        .with("--cache-size", LIMIT.to_string())
        .with("--eviction", "lru")
        .mount();
    let keys = bucket.keys();
    let (held, others) = keys.split_at(50);
    let hold = |key| std::fs::File::open(mount.join(key)).expect("open a file to be held");
    let open: Vec<_> = held
        .iter()
        .enumerate()
        .map(|(number, key)| {
            // Before its object is here, or just after it was read.
            if number % 2 == 0 {
                let file = hold(key);
                bucket.check(mount.path(), key);
                file
            } else {
                bucket.check(mount.path(), key);
                hold(key)
            }
        })
        .collect();
    let before = bucket.counters();
    disturb(&mount);
    let (first, second) = others.split_at(others.len() / 2);
    first.iter().for_each(|key| bucket.check(mount.path(), key));
    disturb(&mount);
    second.iter().for_each(|key| bucket.check(mount.path(), key));
    for (key, file) in held.iter().zip(&open) {
        let bytes = &bucket.objects()[key];
        assert!(
            harness::read_range(file, 0, bytes.len()).expect("read a held file") == *bytes,
            "{key}"
        );
        bucket.check(mount.path(), key);
    }
    let after = bucket.counters();
    let fetched: u64 = held
        .iter()
        .map(|key| after.key("data", key).gets - before.key("data", key).gets)
        .sum();
    assert_eq!(fetched, 0, "{view:?}: an open file is still in the cache");
    drop(open);
    mount.unmount();
}

#[test]
fn files_that_are_open_are_never_evicted() {
    for view in View::BOTH {
        keeps_what_is_open(view, |_| {});
    }
}

#[test]
fn files_that_are_open_are_not_evicted_by_another_server() {
    for view in View::BOTH {
        keeps_what_is_open(view, |mount| {
            let killed = mount.kill_server().expect("a server is up");
            mount.wait_for_successor(killed);
        });
    }
}
