//! A source that fails in every way: no wrong byte, no hang past the deadline, errors as documented, healing without help.

use std::fs::File;
use std::time::{Duration, Instant};

use harness::{Bucket, Mount, Scratch, View, expect_errno, read_range, wait_until};
use origin::{Fault, Kind, Rule};

/// Short enough for tests, long enough for a retry.
const DEADLINE: &str = "2s";
/// What a read with that deadline may take at the very most, on a busy machine.
const NO_HANG: Duration = Duration::from_secs(40);

/// Both views at once: most of the time is waited for deadlines.
fn each_view(files: u64, test: impl Fn(&mut Bucket, &Mount) + Sync) {
    std::thread::scope(|views| {
        for view in View::BOTH {
            let test = &test;
            views.spawn(move || {
                let scratch = Scratch::new();
                let mut bucket = Bucket::with_files(files, 50_000);
                bucket.generate("large", 1_000, 20 << 20);
                let mount = bucket.mount(&scratch, view).with("--deadline", DEADLINE).mount();
                test(&mut bucket, &mount);
                bucket.origin().faults().clear();
                mount.unmount();
            });
        }
    });
}

/// A fault that comes and goes is not seen by a reader.
fn passes_unseen(fault: Fault, fraction: f64) {
    each_view(40, |bucket, mount| {
        let rule = bucket
            .origin()
            .faults()
            .add(Rule::new(fault).on(&[Kind::Get]).fraction(fraction));
        bucket.check_all(mount.path());
        assert!(bucket.origin().faults().applied(rule) > 0, "the fault happened");
    });
}

/// A fault that stays is an error by the deadline, and nothing else; reads succeed when it is over.
fn is_an_error(fault: Fault, errno: i32) {
    each_view(5, |bucket, mount| {
        bucket.check(mount.path(), "dir-000/file-00000");
        let rule = bucket.fail_gets(fault);
        for key in ["dir-000/file-00001", "large"] {
            let start = Instant::now();
            expect_errno(
                std::fs::read(mount.join(key)),
                errno,
                &format!("{fault:?}: {key}"),
            );
            assert!(
                start.elapsed() < NO_HANG,
                "{fault:?}: {key} hung for {:?}",
                start.elapsed()
            );
        }
        bucket.check(mount.path(), "dir-000/file-00000");
        bucket.origin().faults().remove(rule);
        wait_until("the source to be asked again", || {
            std::fs::read(mount.join("dir-000/file-00001")).is_ok()
        });
        bucket.check_all(mount.path());
    });
}

#[test]
fn a_storm_of_503_passes_unseen() {
    passes_unseen(Fault::SlowDown, 0.4);
}

#[test]
fn truncated_bodies_pass_unseen() {
    passes_unseen(Fault::Truncate { after: 20_000 }, 0.3);
}

#[test]
fn resets_pass_unseen() {
    passes_unseen(Fault::Reset { after: 10_000 }, 0.3);
}

#[test]
fn errors_of_the_server_pass_unseen() {
    passes_unseen(Fault::Gone, 0.3);
}

#[test]
fn a_body_of_the_wrong_length_now_and_then_passes_unseen() {
    passes_unseen(Fault::WrongLength { by: -1_000 }, 0.2);
}

#[test]
fn a_source_that_is_down_is_eio_and_heals() {
    is_an_error(Fault::Gone, libc::EIO);
}

#[test]
fn a_source_that_throttles_for_ever_is_eio_and_heals() {
    is_an_error(Fault::SlowDown, libc::EIO);
}

#[test]
fn a_source_that_stalls_is_eio_and_heals() {
    is_an_error(Fault::Stall { after: 1_000 }, libc::EIO);
}

#[test]
fn a_source_that_trickles_is_eio_and_heals() {
    is_an_error(
        Fault::Trickle {
            bytes_per_second: 100,
        },
        libc::EIO,
    );
}

#[test]
fn bodies_that_are_always_cut_are_eio_and_heal() {
    is_an_error(Fault::Truncate { after: 0 }, libc::EIO);
}

#[test]
fn an_object_that_changed_is_estale_and_then_its_new_version() {
    let scratch = Scratch::new();
    let mut bucket = Bucket::with_files(5, 50_000);
    bucket.generate("large", 1_000, 20 << 20);
    let mount = bucket
        .mount(&scratch, View::Fuse)
        .with("--deadline", DEADLINE)
        .mount();
    let held = File::open(mount.join("large")).unwrap();
    let part = read_range(&held, 0, 100_000).unwrap();
    assert!(part == bucket.objects()["large"][..100_000]);
    bucket.generate("dir-000/file-00001", 5_001, 50_000);
    bucket.generate("large", 5_002, 20 << 20);
    // The catalog still names the old versions: the first reader gets an error, or sees the new one; never a mix.
    for key in ["dir-000/file-00001", "large"] {
        match std::fs::read(mount.join(key)) {
            Ok(bytes) => assert!(bytes == bucket.objects()[key], "{key}: a mix of versions"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{key}: {error}"),
        }
    }
    // The held file keeps its version or is stale; the part that was read stays what it was.
    match read_range(&held, 12 << 20, 100_000) {
        Ok(bytes) => assert!(bytes == origin::data::bytes(1_000, 12 << 20..(12 << 20) + 100_000)),
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}"),
    }
    wait_until("the refresh that a changed object starts", || {
        std::fs::read(mount.join("dir-000/file-00001"))
            .is_ok_and(|bytes| bytes == bucket.objects()["dir-000/file-00001"])
    });
    wait_until("the new version of the large one", || {
        std::fs::read(mount.join("large")).is_ok_and(|bytes| bytes == bucket.objects()["large"])
    });
    bucket.check_all(mount.path());
    drop(held);
    mount.unmount();
}

#[test]
fn a_kernel_view_says_estale_for_what_changed() {
    let scratch = Scratch::new();
    let mut bucket = Bucket::with_files(5, 50_000);
    bucket.generate("large", 1_000, 20 << 20);
    let mount = bucket
        .mount(&scratch, View::Kernel)
        .with("--deadline", DEADLINE)
        .mount();
    bucket.check(mount.path(), "dir-000/file-00000");
    let unchanged = bucket.objects()["dir-000/file-00000"].clone();
    for (key, seed) in [("dir-000/file-00000", 1), ("dir-000/file-00001", 2), ("large", 3)] {
        let size = bucket.objects()[key].len() as u64;
        bucket.generate(key, 7_000 + seed, size);
    }
    bucket.delete("dir-000/file-00002");
    assert!(
        harness::read(&mount.join("dir-000/file-00000")) == unchanged,
        "what is cached keeps its version"
    );
    for key in ["dir-000/file-00001", "dir-000/file-00002", "large"] {
        expect_errno(std::fs::read(mount.join(key)), libc::ESTALE, key);
    }
    bucket.check(mount.path(), "dir-000/file-00003");
    mount.unmount();
}

#[test]
fn a_server_that_ignores_conditions_never_gives_a_mix() {
    each_view(5, |bucket, mount| {
        let rule = bucket.fail_gets(Fault::WrongEtag);
        for key in ["dir-000/file-00001", "large"] {
            expect_errno(std::fs::read(mount.join(key)), libc::ESTALE, key);
        }
        bucket.origin().faults().remove(rule);
    });
}

#[test]
fn an_object_that_changes_between_two_gets_is_never_mixed() {
    for view in View::BOTH {
        let scratch = Scratch::new();
        let mut bucket = Bucket::new();
        bucket.generate("large", 1_000, 40 << 20);
        let mount = bucket.mount(&scratch, view).with("--deadline", DEADLINE).mount();
        bucket
            .origin()
            .faults()
            .add(Rule::new(Fault::ChangeBetween).on(&[Kind::Get]).times(1));
        match std::fs::read(mount.join("large")) {
            Ok(bytes) => assert!(bytes == bucket.objects()["large"], "{view:?}: one version, whole"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{view:?}: {error}"),
        }
        mount.unmount();
    }
}
