//! pjdfstest, an outside suite: its EROFS cases, on both views.
//!
//! Each of these cases makes a file in a file system that can be written, has mount(8) remount it read-only, tries a call
//! that would modify, and has it made writable again. Here the `mount` that it finds is a script of this test's own: for
//! "read-only" it mounts a copy of the tree with Millpond and binds that over the file system, so that every refusal is
//! Millpond's. The other cases write and expect to succeed: they say nothing of a read-only tree.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use harness::{Scratch, View};

/// All EROFS cases of version 0.2.2 on Linux.
const CASES: [&str; 13] = [
    "chmod::erofs_named",
    "chown::erofs_named",
    "chown::lchown::erofs_named",
    "link::erofs_named",
    "mkdir::erofs_new_file",
    "mkfifo::erofs_new_file",
    "open::erofs_named",
    "open::erofs_new_file",
    "rename::erofs_named",
    "rmdir::erofs_named",
    "symlink::erofs_new_file",
    "truncate::erofs_named",
    "unlink::erofs_named",
];

/// `mount -o remount,ro POINT` and `mount -o remount,rw POINT`, which is all that is asked for.
const MOUNT: &str = r#"#!/bin/sh
set -eu
point=$3
case $2 in
remount,ro)
    rm -rf "$SUITE/source" "$SUITE/cache"
    cp -a "$point" "$SUITE/source"
    # No source has empty directories.
    find "$SUITE/source" -type d -exec touch '{}/.kept' ';'
    "$MILLPOND" mount "file://$SUITE/source" "$SUITE/view" --cache-dir "$SUITE/cache" --view "$VIEW" >&2
    /bin/mount --bind "$SUITE/view" "$point"
    echo "$VIEW" >>"$SUITE/shown"
    ;;
remount,rw)
    /bin/umount "$point"
    "$MILLPOND" unmount "$SUITE/view" >&2
    ;;
*) exit 1 ;;
esac
"#;

/// The cases switch users: these two are on every Debian.
const CONFIGURATION: &str = r#"
[settings]
allow_remount = true
naptime = 0.01
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

fn program() -> PathBuf {
    let tools = std::env::var_os("MILLPOND_TOOLS").map(|tools| PathBuf::from(tools).join("bin/pjdfstest"));
    tools.unwrap_or_else(|| PathBuf::from("pjdfstest"))
}

fn refuses_as_pjdfstest_wants(view: View) {
    let scratch = Scratch::new();
    let point = scratch.tmpfs("mnt", "16m,mode=755");
    scratch.directory("view");
    let programs = scratch.directory("bin");
    std::fs::write(programs.join("mount"), MOUNT).expect("write the script");
    std::fs::set_permissions(programs.join("mount"), PermissionsExt::from_mode(0o755))
        .expect("make the script executable");
    let configuration = scratch.join("pjdfstest.toml");
    std::fs::write(&configuration, CONFIGURATION).expect("write the configuration");
    let millpond = scratch.millpond();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut suite = Command::new(program());
    suite
        .arg("--configuration-file")
        .arg(&configuration)
        .arg("--path")
        .arg(&point)
        .arg("erofs")
        // With the mark by which the scratch folder knows the processes.
        .envs(
            millpond
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("MILLPOND", millpond.get_program())
        .env("VIEW", format!("{view:?}").to_lowercase())
        .env("SUITE", scratch.path());
    let output = suite.output().expect("run pjdfstest: scripts/deps builds it");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{view:?}: {}\n{said}{complained}",
        output.status
    );
    for case in CASES {
        let line = said
            .lines()
            .find(|line| line.split_whitespace().next() == Some(case));
        assert!(
            line.is_some_and(|line| line.trim_end().ends_with("ok")),
            "{view:?}: {case} did not run: {line:?}\n{said}"
        );
    }
    let shown = std::fs::read_to_string(scratch.join("shown")).expect("the script was run");
    assert_eq!(
        shown.lines().count(),
        CASES.len(),
        "{view:?}: each case on a view"
    );
}

#[test]
fn the_kernel_view_refuses_as_pjdfstest_wants() {
    refuses_as_pjdfstest_wants(View::Kernel);
}

#[test]
fn the_fuse_view_refuses_as_pjdfstest_wants() {
    refuses_as_pjdfstest_wants(View::Fuse);
}
