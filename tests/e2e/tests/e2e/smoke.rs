//! What a user does first: mount, read, look, unmount; and what is refused with which words.

use std::fs;
use std::process::Command;

use harness::metrics::{self, Metrics};
use harness::{Bucket, MountCommand, Role, Scratch, View, files_below, wait_until};

fn both(test: impl Fn(View)) {
    for view in View::BOTH {
        test(view);
    }
}

#[test]
fn a_bucket_becomes_a_directory_and_is_fetched_once() {
    both(|view| {
        let scratch = Scratch::new();
        let mut bucket = Bucket::with_files(150, 30_000);
        bucket.generate("large.bin", 999, 20 << 20);
        bucket.put("empty", Vec::new());
        let mount = bucket.mount(&scratch, view).switch("--no-hedging").mount();
        bucket.check_all(mount.path());
        let fetched = bucket.counters();
        assert_eq!(
            fetched.bytes_sent,
            bucket.total_bytes(),
            "each byte is fetched once"
        );
        harness::drop_caches();
        bucket.check_all(mount.path());
        assert_eq!(
            bucket.counters().gets,
            fetched.gets,
            "the second pass asks the origin for nothing"
        );
        mount.unmount();
        assert!(scratch.mounts().is_empty(), "{:?}", scratch.mounts());
    });
}

#[test]
fn a_second_mount_finds_catalog_and_cache() {
    both(|view| {
        let scratch = Scratch::new();
        let bucket = Bucket::with_files(50, 30_000);
        let command = bucket.mount(&scratch, view);
        let mount = command.mount();
        bucket.check_all(mount.path());
        mount.unmount();
        let before = bucket.counters();
        let mount = command.mount();
        bucket.check_all(mount.path());
        assert_eq!(bucket.counters().gets, before.gets, "everything was kept");
        mount.unmount();
    });
}

#[test]
fn a_memory_tier_serves_too() {
    both(|view| {
        let scratch = Scratch::new();
        let bucket = Bucket::with_files(100, 50_000);
        let mount = bucket.mount(&scratch, view).with("--memory-size", "64Mi").mount();
        bucket.check_all(mount.path());
        let before = bucket.counters();
        bucket.check_all(mount.path());
        assert_eq!(bucket.counters().gets, before.gets);
        mount.unmount();
        assert!(scratch.mounts().is_empty(), "{:?}", scratch.mounts());
    });
}

#[test]
fn a_refresh_shows_what_is_new() {
    let scratch = Scratch::new();
    let mut bucket = Bucket::with_files(10, 1_000);
    let mount = bucket.mount(&scratch, View::Fuse).mount();
    bucket.check_all(mount.path());
    bucket.generate("new/file", 77, 5_000);
    bucket.delete("dir-000/file-00003");
    bucket.generate("dir-000/file-00004", 78, 6_000);
    mount.succeed(&["refresh"]);
    wait_until("the new generation", || mount.join("new/file").exists());
    bucket.check_all(mount.path());
    mount.unmount();
}

#[test]
fn a_kernel_view_keeps_its_generation() {
    let scratch = Scratch::new();
    let mut bucket = Bucket::with_files(10, 1_000);
    let command = bucket.mount(&scratch, View::Kernel);
    let mount = command.mount();
    let before = files_below(mount.path());
    bucket.check_all(mount.path());
    bucket.generate("new/file", 77, 5_000);
    mount.succeed(&["refresh"]);
    assert_eq!(files_below(mount.path()), before);
    mount.unmount();
    let mount = command.mount();
    bucket.check_all(mount.path());
    mount.unmount();
}

#[test]
fn warming_fetches_everything_ahead() {
    both(|view| {
        let scratch = Scratch::new();
        let mut bucket = Bucket::with_files(120, 20_000);
        bucket.generate("large.bin", 5, 20 << 20);
        let mount = bucket.mount(&scratch, view).mount();
        mount.succeed(&["warmup"]);
        let warmed = bucket.counters();
        assert_eq!(warmed.bytes_sent, bucket.total_bytes());
        bucket.check_all(mount.path());
        assert_eq!(
            bucket.counters().gets,
            warmed.gets,
            "reads after a warm-up ask the origin for nothing"
        );
        mount.succeed(&["warmup"]);
        assert_eq!(
            bucket.counters().gets,
            warmed.gets,
            "a second warm-up has nothing to fetch"
        );
        mount.unmount();
    });
}

#[test]
fn metrics_and_health_are_served() {
    let scratch = Scratch::new();
    let bucket = Bucket::with_files(20, 10_000);
    let address = metrics::free_address().unwrap();
    let mount = bucket
        .mount(&scratch, View::Kernel)
        .with("--metrics", address.as_str())
        .mount();
    bucket.check_all(mount.path());
    let fetched = bucket.counters().bytes_sent;
    assert_eq!(metrics::get(&address, "/healthz").unwrap().status, 200);
    let metrics = Metrics::read(&address).unwrap();
    let origin = metrics.sum("millpond_origin_bytes_total", &[]);
    assert!(
        (origin - fetched as f64).abs() < 1.0,
        "{origin} of {fetched} in\n{metrics:?}"
    );
    mount.unmount();
}

#[test]
fn umount_and_sigterm_end_a_mount() {
    both(|view| {
        let scratch = Scratch::new();
        let bucket = Bucket::with_files(10, 1_000);
        let command = bucket.mount(&scratch, view);
        let mount = command.mount();
        bucket.check_all(mount.path());
        let status = Command::new("umount").arg(mount.path()).status().unwrap();
        assert!(status.success());
        wait_until("the processes to end after umount", || {
            mount.processes(Role::Supervisor).is_empty()
        });
        drop(mount);
        let mount = command.mount();
        bucket.check_all(mount.path());
        mount
            .processes(Role::Supervisor)
            .first()
            .expect("a supervisor")
            .terminate();
        wait_until("the processes to end after SIGTERM", || {
            mount.processes(Role::Supervisor).is_empty()
        });
        assert!(scratch.mounts().is_empty(), "{:?}", scratch.mounts());
    });
}

#[test]
fn the_same_directory_or_cache_is_refused_twice() {
    let scratch = Scratch::new();
    let bucket = Bucket::with_files(10, 1_000);
    let command = bucket.mount(&scratch, View::Kernel);
    let mount = command.mount();
    let again = command.run();
    assert_eq!(
        again.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&again.stderr)
    );
    assert!(String::from_utf8_lossy(&again.stderr).contains("already"));
    let elsewhere = scratch.directory("elsewhere");
    let shared = command.clone().at(&elsewhere).run();
    assert_eq!(shared.status.code(), Some(1));
    let said = String::from_utf8_lossy(&shared.stderr).into_owned();
    assert!(said.contains("cache"), "{said}");
    bucket.check_all(mount.path());
    mount.unmount();
}

#[test]
fn a_source_that_cannot_be_listed_is_a_reason() {
    let scratch = Scratch::new();
    let bucket = Bucket::new();
    let output = MountCommand::new(&scratch, "s3://no-such-bucket", View::Kernel)
        .with("--endpoint", bucket.origin().url())
        .with("--deadline", "3s")
        .switch("--anonymous")
        .run();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("no-such-bucket") || said.contains("NoSuchBucket"),
        "{said}"
    );
    assert!(scratch.mounts().is_empty(), "{:?}", scratch.mounts());
}

#[test]
fn bad_flags_name_themselves() {
    let scratch = Scratch::new();
    for (flag, value) in [
        ("--cache-size", "many"),
        ("--file-mode", "0999"),
        ("--refresh", "soon"),
        ("--option", "nonsense"),
        ("--option", "no_such_key=1"),
        ("--endpoint", "not a url"),
    ] {
        let output = MountCommand::new(&scratch, "s3://data", View::Kernel)
            .with(flag, value)
            .run();
        assert!(!output.status.success(), "{flag} {value}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains(flag.trim_start_matches('-')) || said.contains("no_such_key"),
            "{flag} {value}: {said}"
        );
    }
    let output = MountCommand::new(&scratch, "ftp://host/path", View::Kernel).run();
    assert!(!output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("s3"),
        "the error names what is possible"
    );
}

#[test]
fn a_directory_is_a_source() {
    both(|view| {
        let scratch = Scratch::new();
        let source = scratch.directory("source/sub");
        fs::write(source.join("file"), b"from a directory").unwrap();
        fs::write(scratch.join("source/other"), b"and another").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", scratch.join("source/link")).unwrap();
        let mount = MountCommand::new(
            &scratch,
            &format!("file://{}", scratch.join("source").display()),
            view,
        )
        .mount();
        assert_eq!(fs::read(mount.join("sub/file")).unwrap(), b"from a directory");
        assert_eq!(fs::read(mount.join("other")).unwrap(), b"and another");
        assert!(
            !mount.join("link").exists(),
            "links out of the source are not followed"
        );
        mount.unmount();
    });
}

#[test]
fn the_doctor_says_what_there_is() {
    let scratch = Scratch::new();
    let output = scratch.millpond().arg("doctor").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for word in ["fuse", "overlay", "erofs"] {
        assert!(said.to_lowercase().contains(word), "{word} in {said}");
    }
}
