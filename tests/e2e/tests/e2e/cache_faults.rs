//! A cache directory that is damaged from outside: right bytes, always.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use harness::{Bucket, Mount, MountCommand, Scratch, View};

const SMALL: u64 = 60_000;

fn each_view(test: impl Fn(&Scratch, &Bucket, &MountCommand)) {
    for view in View::BOTH {
        let scratch = Scratch::new();
        let mut bucket = Bucket::with_files(60, SMALL);
        bucket.generate("large", 900, 20 << 20);
        let command = bucket.mount(&scratch, view);
        test(&scratch, &bucket, &command);
    }
}

/// All files below a directory of the cache.
fn cached(cache: &Path, kind: &str) -> Vec<PathBuf> {
    walkdir::WalkDir::new(cache.join(kind))
        .into_iter()
        .flatten()
        .filter(|entry| entry.file_type().is_file())
        .map(walkdir::DirEntry::into_path)
        .collect()
}

/// Flips a bit in the middle of a file, whatever its mode.
fn flip(path: &Path) {
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("open a cached object");
    let middle = file.metadata().expect("its size").len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).expect("read a byte");
    file.write_all_at(&[byte[0] ^ 0x10], middle).expect("flip a bit");
}

fn fill_and_unmount(bucket: &Bucket, command: &MountCommand) {
    let mount = command.mount();
    bucket.check_all(mount.path());
    mount.unmount();
}

fn kill_everything(scratch: &Scratch) {
    for process in harness::processes(scratch.path()) {
        process.kill();
    }
    harness::wait_until("all processes to exit", || {
        harness::processes(scratch.path()).is_empty()
    });
}

#[test]
fn bits_flipped_by_a_crash_of_the_machine_are_found() {
    each_view(|scratch, bucket, command| {
        let mount = command.clone().env("UNSTABLE_MILLPOND_BOOT_ID", "before").mount();
        bucket.check_all(mount.path());
        kill_everything(scratch);
        drop(mount);
        for point in scratch.mounts() {
            nix::mount::umount2(&point, nix::mount::MntFlags::MNT_DETACH)
                .expect("unmount what a crash would have");
        }
        let objects = cached(&scratch.join("cache"), "objects");
        assert!(objects.len() >= 61, "{}", objects.len());
        objects.iter().step_by(3).for_each(|path| flip(path));
        let mount = command.clone().env("UNSTABLE_MILLPOND_BOOT_ID", "after").mount();
        let before = bucket.counters();
        bucket.check_all(mount.path());
        let fetched = bucket.counters().gets - before.gets;
        assert!(fetched >= 20, "damaged objects are fetched again: {fetched}");
        assert!(fetched < 60, "the others are not: {fetched}");
        mount.unmount();
    });
}

#[test]
fn a_clean_stop_needs_no_check_after_a_restart_of_the_machine() {
    each_view(|_, bucket, command| {
        fill_and_unmount(
            bucket,
            &command.clone().env("UNSTABLE_MILLPOND_BOOT_ID", "before"),
        );
        let before = bucket.counters();
        let mount = command.clone().env("UNSTABLE_MILLPOND_BOOT_ID", "after").mount();
        bucket.check_all(mount.path());
        assert_eq!(bucket.counters().gets, before.gets);
        mount.unmount();
    });
}

fn damage_while_mounted(damage: impl Fn(&Scratch)) {
    each_view(|scratch, bucket, command| {
        let mount: Mount = command.mount();
        bucket.check_all(mount.path());
        damage(scratch);
        harness::drop_caches();
        bucket.check_all(mount.path());
        // Again from what was fetched again.
        bucket.check_all(mount.path());
        mount.unmount();
    });
}

#[test]
fn deleted_objects_are_fetched_again() {
    damage_while_mounted(|scratch| {
        for kind in ["objects", "landing"] {
            for path in cached(&scratch.join("cache"), kind) {
                fs::remove_file(path).expect("delete a cached object");
            }
        }
    });
}

#[test]
fn deleted_directories_are_made_again() {
    damage_while_mounted(|scratch| {
        for kind in ["objects", "landing", "partial"] {
            for entry in fs::read_dir(scratch.join("cache").join(kind)).expect("list the cache") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    fs::remove_dir_all(path).expect("delete a directory of the cache");
                }
            }
        }
    });
}

#[test]
fn truncated_objects_are_never_served_short() {
    each_view(|scratch, bucket, command| {
        fill_and_unmount(bucket, command);
        for path in cached(&scratch.join("cache"), "objects").iter().step_by(2) {
            let file = fs::OpenOptions::new()
                .write(true)
                .open(path)
                .expect("open a cached object");
            file.set_len(file.metadata().expect("its size").len() / 2)
                .expect("cut it");
        }
        let mount = command
            .clone()
            .env("UNSTABLE_MILLPOND_BOOT_ID", "another")
            .mount();
        // Without a crash nothing is read again at once; the mark of the clean stop goes first.
        drop(mount);
        fs::remove_file(scratch.join("cache/state.json")).expect("remove the mark");
        let mount = command.mount();
        bucket.check_all(mount.path());
        mount.unmount();
    });
}

#[test]
fn a_full_disk_serves_through() {
    for view in View::BOTH {
        let scratch = Scratch::new();
        let bucket = Bucket::with_files(300, 100_000);
        let cache = scratch.ext4("small", 24 << 20);
        let mount = bucket
            .mount(&scratch, view)
            .with("--cache-dir", cache.join("cache"))
            .mount();
        bucket.check_all(mount.path());
        bucket.check_all(mount.path());
        mount.unmount();
    }
}

#[test]
fn a_disk_that_somebody_else_fills_serves_through() {
    for view in View::BOTH {
        let scratch = Scratch::new();
        let bucket = Bucket::with_files(100, 100_000);
        let cache = scratch.ext4("small", 48 << 20);
        let mount = bucket
            .mount(&scratch, view)
            .with("--cache-dir", cache.join("cache"))
            .mount();
        for key in bucket.keys().iter().take(20) {
            bucket.check(mount.path(), key);
        }
        // Fills what is left; the write must fail at the end.
        assert!(fs::write(cache.join("stranger"), vec![1; 64 << 20]).is_err());
        bucket.check_all(mount.path());
        fs::remove_file(cache.join("stranger")).expect("make room again");
        bucket.check_all(mount.path());
        mount.unmount();
    }
}

#[test]
fn a_cache_that_was_killed_while_it_was_written_is_right() {
    for view in View::BOTH {
        let scratch = Scratch::new();
        let mut bucket = Bucket::with_files(600, SMALL);
        bucket.generate("large", 900, 40 << 20);
        let command = bucket.mount(&scratch, view);
        for round in 0..4_usize {
            let mount = command.mount();
            std::thread::scope(|scope| {
                let reading = scope.spawn(|| {
                    for key in bucket.keys().iter().skip(round * 120).take(240) {
                        // Ends with an error when everything is killed.
                        let Ok(bytes) = fs::read(mount.join(key)) else {
                            return;
                        };
                        assert!(bytes == bucket.objects()[key], "{key}");
                    }
                });
                let before = bucket.counters().gets;
                harness::wait_until("some reads", || {
                    bucket.counters().gets >= before + 20 || reading.is_finished()
                });
                kill_everything(&scratch);
                // Without server and keeper a waiting read ends; then all is clear for the next round.
                reading
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            });
        }
        let mount = command.mount();
        bucket.check_all(mount.path());
        mount.unmount();
    }
}

#[test]
fn a_cache_directory_that_cannot_be_used_is_a_reason() {
    let scratch = Scratch::new();
    let bucket = Bucket::with_files(5, 1_000);
    fs::write(scratch.join("file"), b"not a directory").expect("write a file");
    let output = bucket
        .mount(&scratch, View::Kernel)
        .with("--cache-dir", scratch.join("file/cache"))
        .run();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("cache"), "{said}");
}
