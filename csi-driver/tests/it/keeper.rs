//! Test of the keeper's process: registered descriptors outlive the client, and it needs little memory.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::program::{MAX_ANONYMOUS_BYTES, Program};
use millpond_fs::keeper::KeeperClient;

fn keeper(socket: &Path, limit: &str) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond-keeper"));
    Program::start(command.args(["--limit", limit, "--socket"]).arg(socket))
}

fn connected(socket: &Path) -> (KeeperClient, OwnedFd) {
    let client = KeeperClient::reconnecting();
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match client.connect(socket) {
            Ok(watched) => return (client, watched),
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        #[expect(clippy::disallowed_methods, reason = "a test may wait")]
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn table() -> OwnedFd {
    rustix::fs::memfd_create("table", rustix::fs::MemfdFlags::CLOEXEC).unwrap()
}

#[test]
fn what_a_server_gave_is_there_for_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("keeper/keeper.sock");
    let keeper = keeper(&socket, "60s");
    let (first, watched) = connected(&socket);
    let (mut reader, writer) = std::io::pipe().unwrap();
    for number in 0..50 {
        let name = format!("mount-{number}");
        first
            .register(&name, u32::MAX, "note", writer.as_fd(), table().as_fd())
            .unwrap();
    }
    first.ready().unwrap();
    drop((first, watched, writer));
    let (second, watched) = connected(&socket);
    let taken = second.take_over("mount-7").unwrap().unwrap();
    assert_eq!(taken.note, "note");
    assert!(
        keeper.anonymous_bytes() <= MAX_ANONYMOUS_BYTES,
        "{}",
        keeper.anonymous_bytes()
    );
    drop(keeper);
    // When the keeper exits, descriptors held only by it are closed, and the client notices immediately.
    drop(taken);
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    assert_eq!(rustix::io::read(&watched, &mut [0; 8]).unwrap_or(0), 0);
    second.ready().unwrap();
    assert!(
        second.take_over("mount-7").unwrap().is_none(),
        "a disconnected keeper holds nothing"
    );
}

#[test]
fn a_mount_that_nobody_serves_is_given_up_and_the_others_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("keeper.sock");
    let _keeper = keeper(&socket, "1s");
    let ((leaving, watched), (staying, _watched)) = (connected(&socket), connected(&socket));
    let ((mut lost, writer), (_kept, other)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    leaving
        .register("lost", u32::MAX, "", writer.as_fd(), table().as_fd())
        .unwrap();
    staying
        .register("staying", u32::MAX, "", other.as_fd(), table().as_fd())
        .unwrap();
    leaving.ready().unwrap();
    staying.ready().unwrap();
    drop((leaving, watched, writer));
    assert_eq!(
        lost.read(&mut [0]).unwrap(),
        0,
        "its descriptor is closed after the timeout"
    );
    assert!(staying.take_over("staying").unwrap().is_some());
    assert!(staying.take_over("lost").unwrap().is_none());
}
