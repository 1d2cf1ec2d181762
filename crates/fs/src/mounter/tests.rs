use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::message::{Request, Response, VERSION};
use super::testing::mounter;
use crate::mount::{MountError, Overlay, Size, clone_tree};
use crate::peer;

/// The error of a call with all its causes.
fn describe(error: &MountError) -> (String, String, Option<i32>) {
    let cause = std::error::Error::source(error).unwrap().to_string();
    (error.to_string(), cause, error.raw_os_error())
}

#[test]
fn an_error_is_the_one_that_the_call_would_have_had_here() {
    let root = tempfile::tempdir().unwrap();
    let mounter = mounter(root.path());
    let nowhere = root.path().join(OsStr::from_bytes(b"no\xffwhere"));
    let (here, there) = (
        clone_tree(&nowhere).unwrap_err(),
        mounter.tree(&nowhere).unwrap_err(),
    );
    assert_eq!(describe(&here), describe(&there));
    let (here, there) = (
        Size::of(&nowhere).unwrap_err(),
        mounter.size(&nowhere).unwrap_err(),
    );
    assert_eq!(describe(&here), describe(&there));
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run to its end: needs root");
        return;
    }
    let overlay = Overlay {
        subject: nowhere.clone().into(),
        options: vec![("metacopy".to_owned(), "perhaps".into())],
        metadata: nowhere.clone().into(),
        data: vec![nowhere.into()],
    };
    let (here, there) = (
        overlay.mount().unwrap_err(),
        mounter.overlay(overlay).unwrap_err(),
    );
    assert!(describe(&here).0.contains("kernel log"), "{here}");
    assert_eq!(describe(&here), describe(&there));
}

#[test]
fn a_size_is_that_of_the_file_system() {
    let root = tempfile::tempdir().unwrap();
    let mounter = mounter(root.path());
    let proc = Path::new("/proc");
    assert_eq!(mounter.size(proc).unwrap(), Size::of(proc).unwrap());
}

#[test]
fn what_is_no_request_is_refused_and_the_next_is_answered() {
    let root = tempfile::tempdir().unwrap();
    let mounter = mounter(root.path());
    let socket = root.path().join("mounter.sock");
    let relative = Request::Tree {
        directory: "proc".into(),
    };
    let refused = |line| {
        let (response, descriptors) = peer::receive::<Response>(line, VERSION).unwrap();
        assert!(matches!(response, Response::Refused { .. }), "{response:?}");
        assert!(descriptors.is_empty());
    };
    let line = peer::connect(&socket).unwrap();
    peer::send(&line, VERSION, &relative, &[]).unwrap();
    refused(&line);
    let line = peer::connect(&socket).unwrap();
    peer::send(&line, VERSION + 1, &relative, &[]).unwrap();
    refused(&line);
    let line = peer::connect(&socket).unwrap();
    rustix::io::write(&line, b"{").unwrap();
    refused(&line);
    let line = peer::connect(&socket).unwrap();
    let request = Request::Size { path: "/proc".into() };
    peer::send(&line, VERSION, &request, &[line.as_fd()]).unwrap();
    refused(&line);
    drop(peer::connect(&socket).unwrap());
    mounter.size(Path::new("/proc")).unwrap();
}

#[test]
fn a_mounter_that_is_being_started_is_waited_for() {
    let root = tempfile::tempdir().unwrap();
    let absent = super::Mounter::at(root.path().join("mounter.sock"));
    std::thread::scope(|scope| {
        let request = scope.spawn(|| absent.size(Path::new("/proc")));
        // A mounter that has exited leaves its socket.
        drop(peer::listen(&root.path().join("mounter.sock")).unwrap());
        mounter(root.path());
        request.join().unwrap().unwrap();
    });
}
