//! What becomes of a mount whose supervisor, or all of whose processes, were killed; how a foreground mount ends; and
//! what is refused.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use harness::{Bucket, Mount, Role, Scratch, View, read_range, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SIZE: u64 = 60_000;

/// Kills the supervisor alone, and waits until its server has noticed.
fn orphan(mount: &Mount) {
    let supervisors = mount.processes(Role::Supervisor);
    supervisors.first().expect("a supervisor").kill();
    wait_until("the server to notice that its supervisor has exited", || {
        mount.stats()["mount"]["supervised"] == false
    });
}

fn no_process_left(scratch: &Scratch) {
    wait_until("all processes to end", || {
        harness::processes(scratch.path()).is_empty()
    });
}

/// The run directory, by the log that it holds.
fn run_directory(mount: &Mount) -> PathBuf {
    let log = mount.stats()["mount"]["log"].as_str().expect("a path").to_owned();
    Path::new(&log)
        .parent()
        .expect("it lies in the run directory")
        .to_owned()
}

#[test]
fn a_server_without_its_supervisor_serves_what_is_cached_and_what_is_not() {
    for view in View::BOTH {
        let scratch = Scratch::new();
        let mut bucket = Bucket::with_files(40, SIZE);
        bucket.generate("large", 7, 20 << 20);
        let mount = bucket.mount(&scratch, view).mount();
        let run = run_directory(&mount);
        bucket.check(mount.path(), "dir-000/file-00000");
        let held = File::open(mount.join("large")).unwrap();
        orphan(&mount);
        bucket.check_all(mount.path());
        let said = mount.succeed(&["stats"]);
        assert!(said.contains("its supervisor was killed"), "{said}");
        assert!(read_range(&held, 0, 20 << 20).unwrap() == bucket.objects()["large"]);
        drop(held);
        mount.succeed(&["unmount"]);
        no_process_left(&scratch);
        assert!(scratch.mounts().is_empty(), "{view:?}: {:?}", scratch.mounts());
        assert!(!run.exists(), "{view:?}: {} is left", run.display());
    }
}

#[test]
fn a_mount_without_its_supervisor_ends_by_umount() {
    for view in View::BOTH {
        let scratch = Scratch::new();
        let bucket = Bucket::with_files(10, SIZE);
        let mount = bucket.mount(&scratch, view).mount();
        let run = run_directory(&mount);
        bucket.check_all(mount.path());
        orphan(&mount);
        let status = Command::new("umount").arg(mount.path()).status().unwrap();
        assert!(status.success());
        no_process_left(&scratch);
        wait_until("the run directory to be removed", || !run.exists());
        assert!(scratch.mounts().is_empty(), "{view:?}: {:?}", scratch.mounts());
    }
}

#[test]
fn a_mount_without_its_supervisor_can_be_made_again_under_open_files() {
    for view in View::BOTH {
        let scratch = Scratch::new();
        let bucket = Bucket::with_files(40, SIZE);
        let command = bucket.mount(&scratch, view);
        let mount = command.mount();
        mount.succeed(&["warmup"]);
        bucket.check_all(mount.path());
        let fetched = bucket.counters().gets;
        let held = File::open(mount.join("dir-000/file-00003")).unwrap();
        orphan(&mount);
        let again = command.mount();
        assert_eq!(again.processes(Role::Server).len(), 1, "{view:?}");
        assert_eq!(again.processes(Role::Supervisor).len(), 1, "{view:?}");
        bucket.check_all(again.path());
        assert_eq!(
            bucket.counters().gets,
            fetched,
            "{view:?}: nothing is fetched again"
        );
        if view == View::Kernel {
            let expected = &bucket.objects()["dir-000/file-00003"];
            assert!(read_range(&held, 0, expected.len()).unwrap() == *expected);
        }
        drop(held);
        again.unmount();
        assert!(scratch.mounts().is_empty(), "{view:?}: {:?}", scratch.mounts());
    }
}

#[test]
fn a_server_without_its_supervisor_ends_by_sigterm() {
    let scratch = Scratch::new();
    let bucket = Bucket::with_files(10, SIZE);
    let mount = bucket.mount(&scratch, View::Kernel).mount();
    let run = run_directory(&mount);
    orphan(&mount);
    mount
        .processes(Role::Server)
        .first()
        .expect("a server")
        .terminate();
    no_process_left(&scratch);
    wait_until("the run directory to be removed", || !run.exists());
    assert!(scratch.mounts().is_empty(), "{:?}", scratch.mounts());
}

#[test]
fn what_killed_mounts_left_is_removed_by_the_next_mount_of_anything() {
    let (scratch, other) = (Scratch::new(), Scratch::new());
    let bucket = Bucket::with_files(10, SIZE);
    let mount = bucket.mount(&scratch, View::Kernel).mount();
    // Before the first lookup, so that every file is the kernel's alone from its first open on.
    mount.succeed(&["warmup"]);
    bucket.check_all(mount.path());
    let run = run_directory(&mount);
    for process in harness::processes(scratch.path()) {
        process.kill();
    }
    no_process_left(&scratch);
    // It can be seen still, and cached files are read: not to be touched.
    let elsewhere = bucket.mount(&other, View::Kernel);
    elsewhere.mount().unmount();
    assert!(run.exists());
    bucket.check_all(mount.path());
    assert!(
        Command::new("umount")
            .arg(mount.path())
            .status()
            .unwrap()
            .success()
    );
    elsewhere.mount().unmount();
    assert!(!run.exists(), "{} is left", run.display());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let below = run.to_str().unwrap();
    assert!(!mounts.contains(below), "mounts below {below} are left");
}

#[test]
fn unmount_takes_away_what_killed_processes_left() {
    for view in View::BOTH {
        let scratch = Scratch::new();
        let bucket = Bucket::with_files(10, SIZE);
        let mount = bucket.mount(&scratch, view).mount();
        let run = run_directory(&mount);
        for process in harness::processes(scratch.path()) {
            process.kill();
        }
        no_process_left(&scratch);
        mount.succeed(&["unmount"]);
        assert!(!run.exists(), "{view:?}: {} is left", run.display());
        assert!(scratch.mounts().is_empty(), "{view:?}: {:?}", scratch.mounts());
    }
}

#[test]
fn a_mount_in_use_is_unmounted_by_force_only() {
    for view in View::BOTH {
        for orphaned in [false, true] {
            let scratch = Scratch::new();
            let bucket = Bucket::with_files(10, SIZE);
            let mount = bucket.mount(&scratch, view).mount();
            bucket.check_all(mount.path());
            if orphaned {
                orphan(&mount);
            }
            let held = File::open(mount.join("dir-000/file-00001")).unwrap();
            let refused = mount.command(&["unmount"]);
            assert!(!refused.status.success());
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(said.contains("in use") && said.contains("--force"), "{said}");
            bucket.check_all(mount.path());
            mount.succeed(&["unmount", "--force"]);
            no_process_left(&scratch);
            assert!(scratch.mounts().is_empty(), "{view:?}: {:?}", scratch.mounts());
            drop(held);
        }
    }
}

/// A mount in the foreground, killed when it is dropped.
struct Foreground(Child);

impl Foreground {
    fn start(scratch: &Scratch, bucket: &Bucket, log: &Path) -> Self {
        let directory = scratch.directory("mnt");
        let child = scratch
            .millpond()
            .args(["mount", "--foreground", "--anonymous", "--endpoint"])
            .arg(bucket.origin().url())
            .arg("--cache-dir")
            .arg(scratch.directory("cache"))
            .arg("s3://data")
            .arg(&directory)
            .stdout(Stdio::null())
            .stderr(File::create(log).expect("make a file for the log"))
            .spawn()
            .expect("run millpond mount");
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).expect("a process number");
        kill(Pid::from_raw(pid), signal).expect("signal the foreground mount");
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_foreground_mount_ends_by_interrupt_and_hangup() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let scratch = Scratch::new();
        let bucket = Bucket::with_files(10, SIZE);
        let log = scratch.join("log");
        let mut mount = Foreground::start(&scratch, &bucket, &log);
        let directory = scratch.join("mnt");
        wait_until("the foreground mount to be usable", || {
            directory.join("dir-000/file-00009").exists()
        });
        bucket.check_all(&directory);
        mount.signal(signal);
        let status = mount.0.wait().expect("wait for the foreground mount");
        assert!(status.success(), "{signal}: {status}");
        no_process_left(&scratch);
        assert!(scratch.mounts().is_empty(), "{signal}: {:?}", scratch.mounts());
    }
}

#[test]
fn a_foreground_mount_that_cannot_be_says_why_in_words() {
    let scratch = Scratch::new();
    let output = scratch
        .millpond()
        .args(["mount", "--foreground", "file:///no/such/source", "--cache-dir"])
        .arg(scratch.directory("cache"))
        .arg(scratch.directory("mnt"))
        .output()
        .expect("run millpond mount");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("/no/such/source"), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: "), "{said}");
    assert!(
        output.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn a_mount_point_of_another_is_refused_by_its_name() {
    let scratch = Scratch::new();
    let bucket = Bucket::with_files(1, SIZE);
    let busy = scratch.tmpfs("busy", "1M");
    let output = bucket.mount(&scratch, View::Kernel).at(&busy).run();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("already a mount point") && said.contains("millpond-e2e"),
        "{said}"
    );
}

/// A working directory of a process is not in the way; that process stays in what is under the mount.
#[test]
fn a_directory_that_somebody_stands_in_can_be_mounted_over() {
    let scratch = Scratch::new();
    let bucket = Bucket::with_files(10, SIZE);
    let directory = scratch.directory("mnt");
    let mut stander = Command::new("sleep")
        .arg("600")
        .current_dir(&directory)
        .spawn()
        .unwrap();
    let mount = bucket.mount(&scratch, View::Kernel).mount();
    bucket.check_all(mount.path());
    stander.kill().unwrap();
    stander.wait().unwrap();
    mount.unmount();
    assert!(scratch.mounts().is_empty(), "{:?}", scratch.mounts());
}
