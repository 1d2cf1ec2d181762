//! Without root, and where the kernel refuses what the kernel view needs: the FUSE view, and words that say so.

use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Command, Output};

use harness::{Bucket, Scratch};

/// An unprivileged user and group that every system has.
const UNPRIVILEGED_ID: u32 = 65_534;

/// The program, where every user can run it.
fn program(scratch: &Scratch) -> std::path::PathBuf {
    let real = scratch.millpond();
    let program = scratch.join("millpond");
    std::fs::copy(real.get_program(), &program).expect("copy the program");
    program
}

/// Lets the unprivileged user have directories of a scratch folder.
fn give(scratch: &Scratch, names: &[&str]) {
    std::fs::set_permissions(scratch.path(), PermissionsExt::from_mode(0o755)).expect("open the folder");
    for name in names {
        chown(
            scratch.directory(name),
            Some(UNPRIVILEGED_ID),
            Some(UNPRIVILEGED_ID),
        )
        .expect("give a directory away");
    }
}

fn succeeded(output: &Output) -> String {
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{}\n{said}", output.status);
    said
}

/// What each script begins with: a device that the unprivileged user may open, as udev makes it everywhere, and `as`,
/// which runs a command as that user. All in a mount namespace of its own.
const AS_UNPRIVILEGED: &str = r#"
    set -e
    mount -t tmpfs -o mode=755 none "$S/dev"
    mknod "$S/dev/fuse" c 10 229
    chmod "$DEVICE_MODE" "$S/dev/fuse"
    mount --bind "$S/dev/fuse" /dev/fuse
    as() { setpriv --reuid 65534 --regid 65534 --clear-groups -- "$@"; }
    cd /
"#;

/// Runs a script after [`AS_UNPRIVILEGED`], with `MILLPOND`, `ENDPOINT` and `S`, the scratch folder.
fn as_nobody(scratch: &Scratch, bucket: &Bucket, device_mode: &str, script: &str) -> Output {
    give(scratch, &["mnt", "cache", "runtime", "home"]);
    scratch.directory("dev");
    let program = program(scratch);
    Command::new("unshare")
        .args(["--mount", "sh", "-c", &format!("{AS_UNPRIVILEGED}{script}")])
        .envs(
            scratch
                .millpond()
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .env("MILLPOND", program)
        .env("ENDPOINT", bucket.origin().url())
        .env("S", scratch.path())
        .env("DEVICE_MODE", device_mode)
        .env("XDG_RUNTIME_DIR", scratch.join("runtime"))
        .env("HOME", scratch.join("home"))
        .env_remove("XDG_CACHE_HOME")
        .output()
        .expect("run unshare")
}

#[test]
fn without_root_the_fuse_view_is_taken_and_said_so() {
    let scratch = Scratch::new();
    let bucket = Bucket::with_files(30, 60_000);
    let script = r#"
        m() { as "$MILLPOND" mount --anonymous --endpoint "$ENDPOINT" s3://data "$S/mnt"; }
        m
        as cp -r "$S/mnt" "$S/home/copy"
        # Its processes killed, it can be mounted again, and unmounted.
        for run in "$S"/runtime/millpond/*; do
            kill -9 "$(cat "$run/pid")" "$(cat "$run/server")"
        done
        m
        as cp -r "$S/mnt" "$S/home/again"
        as "$MILLPOND" unmount "$S/mnt"
        ! grep -q "$S/mnt" /proc/self/mountinfo
    "#;
    let said = succeeded(&as_nobody(&scratch, &bucket, "666", script));
    assert!(
        said.contains("FUSE view") && said.contains("it needs root"),
        "{said}"
    );
    bucket.check_all(&scratch.join("home/copy"));
    bucket.check_all(&scratch.join("home/again"));
    assert!(harness::processes(scratch.path()).is_empty());
    let left: Vec<_> = std::fs::read_dir(scratch.join("runtime/millpond"))
        .expect("list run directories")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn without_root_and_its_supervisor_a_mount_serves_on_and_can_be_unmounted() {
    let scratch = Scratch::new();
    let bucket = Bucket::with_files(30, 60_000);
    let script = r#"
        as "$MILLPOND" mount --anonymous --endpoint "$ENDPOINT" s3://data "$S/mnt"
        kill -9 "$(cat "$S"/runtime/millpond/*/pid)"
        as cp -r "$S/mnt" "$S/home/copy"
        as "$MILLPOND" unmount "$S/mnt"
        ! grep -q "$S/mnt" /proc/self/mountinfo
    "#;
    succeeded(&as_nobody(&scratch, &bucket, "666", script));
    bucket.check_all(&scratch.join("home/copy"));
    assert!(harness::processes(scratch.path()).is_empty());
}

#[test]
fn without_root_the_kernel_view_is_refused_with_what_it_needs() {
    let scratch = Scratch::new();
    let bucket = Bucket::with_files(1, 1_000);
    let script =
        r#"as "$MILLPOND" mount --view kernel --anonymous --endpoint "$ENDPOINT" s3://data "$S/mnt""#;
    let output = as_nobody(&scratch, &bucket, "666", script);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("needs root") && said.contains("doctor"), "{said}");
}

#[test]
fn a_device_that_the_user_may_not_open_is_named() {
    let scratch = Scratch::new();
    let bucket = Bucket::with_files(1, 1_000);
    let script = r#"as "$MILLPOND" mount --anonymous --endpoint "$ENDPOINT" s3://data "$S/mnt""#;
    let output = as_nobody(&scratch, &bucket, "600", script);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("/dev/fuse"), "{said}");
}

/// In a user namespace of its own, root is root to itself and not to the kernel: images and data layers are refused.
#[test]
fn where_the_kernel_refuses_overlays_the_fuse_view_is_taken_and_said_so() {
    let scratch = Scratch::new();
    let bucket = Bucket::with_files(30, 60_000);
    scratch.directory("mnt");
    scratch.directory("cache");
    // The mount can be seen in this namespace only.
    let script = r#"
        set -e
        mount -t tmpfs none /run
        "$MILLPOND" mount --anonymous --endpoint "$ENDPOINT" --cache-dir "$S/cache" s3://data "$S/mnt"
        cp -r "$S/mnt" "$S/copy"
        "$MILLPOND" doctor || true
        "$MILLPOND" unmount "$S/mnt"
    "#;
    let millpond = scratch.millpond();
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .envs(
            millpond
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .env("MILLPOND", millpond.get_program())
        .env("ENDPOINT", bucket.origin().url())
        .env("S", scratch.path())
        .output()
        .expect("run unshare");
    let said = succeeded(&output);
    assert!(
        said.contains("the FUSE view is shown") && said.contains("kernel view"),
        "{said}"
    );
    assert!(said.contains("missing") && said.contains("fix:"), "{said}");
    bucket.check_all(&scratch.join("copy"));
    assert!(harness::processes(scratch.path()).is_empty());
}
