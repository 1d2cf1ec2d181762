//! Generations of the catalog as a user meets them: a refresh is seen at once where it should be and never where it should
//! not, and what is shown or open is kept, whatever happens to the server.

use std::fs::File;

use harness::{Bucket, Mount, Scratch, View, read_range};

const SIZE: u64 = 60_000;

fn kill_and_wait(mount: &Mount) {
    let before = mount.kill_server().expect("a server to kill");
    mount.wait_for_successor(before);
}

/// Another version of one file, in a new generation.
fn change_and_refresh(bucket: &mut Bucket, mount: &Mount, key: &str, seed: u64) {
    bucket.generate(key, seed, SIZE);
    mount.succeed(&["refresh"]);
}

#[test]
fn a_new_generation_is_seen_as_soon_as_the_refresh_returns() {
    let scratch = Scratch::new();
    let mut bucket = Bucket::with_files(20, SIZE);
    let mount = bucket.mount(&scratch, View::Fuse).mount();
    for round in 0..20 {
        change_and_refresh(&mut bucket, &mount, "dir-000/file-00000", 1_000 + round);
        bucket.check(mount.path(), "dir-000/file-00000");
        bucket.generate(&format!("new-{round}"), 2_000 + round, 100);
        mount.succeed(&["refresh"]);
        bucket.check(mount.path(), &format!("new-{round}"));
    }
    bucket.check_all(mount.path());
    mount.unmount();
}

#[test]
fn a_kernel_view_of_an_older_generation_survives_its_server() {
    let scratch = Scratch::new();
    let mut bucket = Bucket::with_files(20, SIZE);
    let mount = bucket.mount(&scratch, View::Kernel).mount();
    bucket.check(mount.path(), "dir-000/file-00000");
    let before = bucket.objects()["dir-000/file-00000"].clone();
    for round in 0..3 {
        change_and_refresh(&mut bucket, &mount, "dir-000/file-00000", 1_000 + round);
        kill_and_wait(&mount);
        // Cached in the version that the view shows, and not cached but unchanged.
        assert!(harness::read(&mount.join("dir-000/file-00000")) == before);
        bucket.check(mount.path(), &format!("dir-000/file-0000{}", round + 1));
    }
    mount.unmount();
}

#[test]
fn files_that_a_kernel_view_reads_through_fuse_are_not_stale_after_a_refresh() {
    let scratch = Scratch::new();
    let mut bucket = Bucket::with_files(20, SIZE);
    // Not whole in the cache, so that they stay with FUSE.
    for number in 0..4 {
        bucket.generate(&format!("large/{number}"), 1_000 + number, 20 << 20);
    }
    let mount = bucket.mount(&scratch, View::Kernel).mount();
    let check = |offset: u64| {
        for number in 0..4 {
            let file = File::open(mount.join(format!("large/{number}"))).expect("open a large file");
            let found = read_range(&file, offset, 10_000).expect("read a large file");
            assert!(
                found == origin::data::bytes(1_000 + number, offset..offset + 10_000),
                "{number} at {offset}"
            );
        }
    };
    check(0);
    for round in 0..3 {
        change_and_refresh(&mut bucket, &mount, "dir-000/file-00000", 2_000 + round);
        check(1_000_000);
        kill_and_wait(&mount);
        check(2_000_000);
    }
    mount.unmount();
}

#[test]
fn an_open_file_outlives_its_generation_and_its_server() {
    for view in View::BOTH {
        let scratch = Scratch::new();
        let mut bucket = Bucket::with_files(20, SIZE);
        bucket.generate("large", 1_000, 20 << 20);
        let mount = bucket.mount(&scratch, view).mount();
        // Nothing of it was read yet: all of it has to come from the source, through a catalog that is the newest no more.
        let held = File::open(mount.join("large")).expect("open a file to be held");
        for round in 0..3 {
            change_and_refresh(&mut bucket, &mount, "dir-000/file-00000", 1_000 + round);
            let offset = round * (5 << 20) + 1_234;
            let found = read_range(&held, offset, 100_000).expect("read the held file");
            assert!(
                found == origin::data::bytes(1_000, offset..offset + 100_000),
                "{view:?}: round {round}"
            );
            kill_and_wait(&mount);
        }
        let bytes = &bucket.objects()["large"];
        assert!(
            read_range(&held, 0, bytes.len()).expect("read all of the held file") == *bytes,
            "{view:?}"
        );
        drop(held);
        mount.unmount();
    }
}

#[test]
fn a_file_that_was_just_opened_outlives_its_generation() {
    for view in View::BOTH {
        let scratch = Scratch::new();
        let mut bucket = Bucket::with_files(20, SIZE);
        for number in 0..8 {
            bucket.generate(&format!("large/{number}"), 1_000 + number, 9 << 20);
        }
        let mount = bucket.mount(&scratch, view).mount();
        for number in 0..8 {
            let held = File::open(mount.join(format!("large/{number}"))).expect("open a file to be held");
            change_and_refresh(&mut bucket, &mount, "dir-000/file-00000", 2_000 + number);
            let found = read_range(&held, 5_000_000, 100_000).expect("read the held file");
            assert!(
                found == origin::data::bytes(1_000 + number, 5_000_000..5_100_000),
                "{view:?}: {number}"
            );
        }
        mount.unmount();
    }
}

#[test]
fn a_mount_shows_its_catalog_while_the_source_is_listed_again() {
    for view in View::BOTH {
        let scratch = Scratch::new();
        let mut bucket = Bucket::with_files(20, SIZE);
        let command = bucket.mount(&scratch, view);
        command.mount().unmount();
        // The listing after the start makes a new generation at the very moment when the one before is shown.
        for round in 0..12 {
            bucket.generate("dir-000/file-00000", 1_000 + round, SIZE);
            let mount = command.mount();
            bucket.check(mount.path(), "dir-000/file-00001");
            mount.unmount();
        }
    }
}
