//! Test of the mounter's process: it exits on SIGTERM, responds to any input, and needs little memory.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::program::{MAX_ANONYMOUS_BYTES, Program};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};

fn mounter(socket: &Path) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond-mounter"));
    let mounter = Program::start(command.arg("--socket").arg(socket));
    let until = Instant::now() + Duration::from_secs(10);
    while !socket.exists() {
        assert!(Instant::now() < until, "it does not listen");
        #[expect(clippy::disallowed_methods, reason = "a test may wait")]
        std::thread::sleep(Duration::from_millis(5));
    }
    mounter
}

/// Returns the mounter's response to some bytes.
fn request(socket: &Path, message: &str) -> String {
    let connection = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    rustix::net::connect(&connection, &SocketAddrUnix::new(socket).unwrap()).unwrap();
    rustix::io::write(&connection, message.as_bytes()).unwrap();
    let mut bytes = vec![0; 1 << 16];
    let length = rustix::io::read(&connection, &mut bytes).unwrap();
    String::from_utf8(bytes[..length].to_owned()).unwrap()
}

#[test]
fn any_input_gets_a_response_and_needs_little_memory() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("run/mounter.sock");
    let mounter = mounter(&socket);
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for message in [
        "{",
        r#"{"version":0,"body":{"Size":{"path":{"Unix":[47]}}}}"#,
        r#"{"version":1,"body":{"Size":{"path":{"Unix":[46]}}}}"#,
        r#"{"version":1,"body":{"Unmount":{"path":{"Unix":[47]}}}}"#,
    ] {
        let response = request(&socket, message);
        assert!(response.contains("Refused"), "{response}");
    }
    for _ in 0..200 {
        let response = request(&socket, r#"{"version":1,"body":{"Size":{"path":{"Unix":[47]}}}}"#);
        assert!(response.contains("bytes"), "{response}");
    }
    let used = mounter.anonymous_bytes();
    assert!(used <= MAX_ANONYMOUS_BYTES, "{used}");
}

#[test]
fn it_ends_when_it_is_told_to() {
    let directory = tempfile::tempdir().unwrap();
    let mut mounter = mounter(&directory.path().join("mounter.sock"));
    let pid = rustix::process::Pid::from_child(&mounter.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(mounter.0.wait().unwrap().success());
}
