//! The demonstration on one machine with little data: all of its steps, and that nothing is left, also after a signal.
//! Needs root or fusermount3, /dev/fuse, versitygw (scripts/deps) and `millpond` beside it.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal};

fn demo(directory: &Path, words: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_millpond-demo"))
        .args(["local", "--directory"])
        .arg(directory)
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run millpond-demo")
}

fn nothing_left(directory: &Path) {
    let left: Vec<_> = directory.read_dir().expect("list the directory").collect();
    assert!(left.is_empty(), "{left:?}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("read the table of mounts");
    assert!(
        !mounts.contains(directory.to_str().expect("a plain path")),
        "{mounts}"
    );
}

#[test]
fn all_steps_succeed_and_nothing_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let output = demo(
        directory.path(),
        &["--small-files", "200", "--large-size", "20MiB"],
    )
    .wait_with_output()
    .expect("wait for millpond-demo");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}{complained}");
    for words in [
        "refuses a wrong secret",
        "took over",
        "/metrics",
        "nothing is left",
    ] {
        assert!(said.contains(words), "{words} in {said}");
    }
    nothing_left(directory.path());
}

#[test]
fn an_interrupt_takes_everything_away() {
    let directory = tempfile::tempdir().unwrap();
    let mut demo = demo(
        directory.path(),
        &["--small-files", "2000", "--large-size", "100MiB"],
    );
    let mut output = BufReader::new(demo.stdout.take().expect("its output"));
    let mut line = String::new();
    // It is mounted, and the first epoch begins.
    while !line.contains("epoch") {
        line.clear();
        assert!(
            output.read_line(&mut line).expect("read its output") > 0,
            "it ended early"
        );
    }
    let pid = Pid::from_raw(i32::try_from(demo.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    let mut complained = String::new();
    demo.stderr
        .take()
        .unwrap()
        .read_to_string(&mut complained)
        .unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(1), "{rest}{complained}");
    assert!(complained.contains("interrupted"), "{rest}{complained}");
    nothing_left(directory.path());
}
