use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::{KeeperClient, KeeperServer};

fn pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    std::io::pipe().unwrap()
}

fn memory() -> OwnedFd {
    rustix::fs::memfd_create("table", rustix::fs::MemfdFlags::CLOEXEC).unwrap()
}

#[test]
fn the_next_server_gets_what_the_last_one_gave() {
    let keeper = KeeperServer::start(Duration::from_secs(60)).unwrap();
    let (mut reader, writer) = pipe();
    let first = KeeperClient::new(keeper.socket().unwrap());
    assert!(first.take_over("m").unwrap().is_none());
    first
        .register("m", u32::MAX, "a note", writer.as_fd(), memory().as_fd())
        .unwrap();
    first.ready().unwrap();
    drop(writer);
    assert!(keeper.status().borrow().ready);

    let second = KeeperClient::new(keeper.socket().unwrap());
    std::thread::scope(|scope| {
        // It waits for the first one's end.
        let taking = scope.spawn(|| second.take_over("m").unwrap().unwrap());
        drop(first);
        let taken = taking.join().unwrap();
        assert_eq!(taken.note, "a note");
        std::fs::File::from(taken.device)
            .write_all(b"still open")
            .unwrap();
    });
    let mut text = [0; 10];
    reader.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"still open");

    second.unregister("m").unwrap();
    assert!(second.take_over("m").unwrap().is_none());
    assert_eq!(reader.read(&mut text).unwrap(), 0, "the keeper has closed it");
}

#[test]
fn another_server_cannot_replace_a_mount_that_is_served() {
    let keeper = KeeperServer::start(Duration::from_secs(60)).unwrap();
    let (_reader, writer) = pipe();
    let (first, second) = (
        KeeperClient::new(keeper.socket().unwrap()),
        KeeperClient::new(keeper.socket().unwrap()),
    );
    first
        .register("m", u32::MAX, "", writer.as_fd(), memory().as_fd())
        .unwrap();
    assert!(
        second
            .register("m", u32::MAX, "", writer.as_fd(), memory().as_fd())
            .is_err()
    );
    assert!(
        first
            .register(
                "m",
                u32::MAX,
                &"x".repeat(100_000),
                writer.as_fd(),
                memory().as_fd()
            )
            .is_err()
    );
}

#[test]
fn a_mount_that_nobody_serves_is_given_up() {
    let keeper = KeeperServer::start(Duration::from_millis(1)).unwrap();
    let (mut reader, writer) = pipe();
    let client = KeeperClient::new(keeper.socket().unwrap());
    // No server reports that it is ready: the timeout runs from the start.
    client
        .register("m", u32::MAX, "", writer.as_fd(), memory().as_fd())
        .unwrap();
    drop(writer);
    assert_eq!(
        reader.read(&mut [0]).unwrap(),
        0,
        "the descriptor is closed after the timeout"
    );
    drop(keeper);
}

#[test]
fn a_holder_that_ends_tells_its_servers() {
    let keeper = KeeperServer::start(Duration::from_secs(60)).unwrap();
    let client = KeeperClient::new(keeper.socket().unwrap());
    client.ready().unwrap();
    drop(keeper);
    assert!(client.ready().is_err());
}
