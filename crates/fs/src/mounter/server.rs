//! The mounter's side of its protocol.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use tracing::{error, info, warn};

use super::message::{Request, Response, VERSION};
use crate::mount::{DetachedMount, MountError, Size, clone_tree};
use crate::peer::{self, ListenError, MessageError};

/// Concurrent requests: a server changes one mount at a time for each Dataset, and checks few volumes concurrently. Beyond
/// that, requests wait for FUSE mounts without a server, and more of them would be of no use.
const MAX_CONCURRENT_REQUESTS: usize = 64;

/// How long a client may take to send its request after it has connected.
const REQUEST_READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves at `socket`, on threads of this process, for as long as it lives.
///
/// The threads have a table of descriptors of their own, with what was open before and nothing that the process opens
/// later: one that waits for a FUSE mount while the process is killed does not keep that mount's device open.
///
/// # Errors
/// The socket or the thread cannot be created.
pub fn start(socket: &Path) -> Result<(), ListenError> {
    let (begun, beginning) = mpsc::sync_channel(1);
    let path = socket.to_owned();
    let run = move || {
        let listening = unshare(CloneFlags::CLONE_FILES)
            .map_err(io::Error::from)
            .and_then(|()| peer::listen(&path));
        let listening = match listening {
            Ok(listening) => listening,
            Err(error) => return drop(begun.send(Err(error))),
        };
        // The caller of `start` waits for it.
        drop(begun.send(Ok(())));
        let error = serve(&listening);
        error!(%error, "the mounter failed; no view can be mounted until it restarts");
    };
    let failed = |action| ListenError::new(action, socket);
    std::thread::Builder::new()
        .name("mounter".to_owned())
        .spawn(run)
        .map_err(failed("start the mounter's thread"))?;
    let begun = beginning.recv().map_err(io::Error::other).flatten();
    begun.map_err(failed("listen"))
}

/// Serves each connection on a thread of its own. Returns only with an error.
pub(super) fn serve(listening: &OwnedFd) -> io::Error {
    let requests = Arc::new(());
    loop {
        let connection = match peer::accept(listening) {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        // One reference is this function's.
        if Arc::strong_count(&requests) > MAX_CONCURRENT_REQUESTS {
            warn!("too many requests wait; one more refused");
            refuse(&connection, "too many requests wait");
            continue;
        }
        let request = Arc::clone(&requests);
        let spawned = std::thread::Builder::new()
            .name("mount".to_owned())
            .spawn(move || {
                serve_request(connection);
                drop(request);
            });
        if let Err(error) = spawned {
            warn!(%error, "failed to start a thread for a request");
        }
    }
}

/// Serves the one request of a connection.
fn serve_request(connection: OwnedFd) {
    let (response, mount) = match receive(&connection) {
        Ok(request) => perform(&request),
        Err(MessageError::Closed) => return,
        Err(error) => {
            warn!(%error, "invalid request; refused");
            return refuse(&connection, &error.to_string());
        }
    };
    let descriptors: Vec<_> = mount.iter().map(AsFd::as_fd).collect();
    if let Err(error) = peer::send(&connection, VERSION, &response, &descriptors) {
        info!(%error, "requester disconnected; its mount is discarded");
    }
    // Before the connection is closed: from then on the mount is the client's alone.
    drop(mount);
}

fn receive(connection: &OwnedFd) -> Result<Request, MessageError> {
    set_socket_timeout(connection, Timeout::Recv, Some(REQUEST_READ_TIMEOUT)).map_err(io::Error::from)?;
    let (request, descriptors) = peer::receive::<Request>(connection, VERSION)?;
    check(&request, &descriptors).map_err(|reason| MessageError::Message {
        reason: reason.to_owned(),
    })?;
    Ok(request)
}

fn check(request: &Request, descriptors: &[OwnedFd]) -> Result<(), &'static str> {
    if !descriptors.is_empty() {
        return Err("a descriptor came with a request");
    }
    let absolute = match request {
        Request::Overlay(overlay) => overlay.paths().all(|path| Path::new(path).is_absolute()),
        Request::Tree { directory: path } | Request::Size { path } => Path::new(path).is_absolute(),
    };
    if absolute {
        Ok(())
    } else {
        Err("a path is not absolute")
    }
}

fn perform(request: &Request) -> (Response, Option<DetachedMount>) {
    let mounted = |mount: Result<DetachedMount, MountError>| match mount {
        Ok(mount) => (Response::Mounted, Some(mount)),
        Err(error) => (Response::Failed(error.into()), None),
    };
    match request {
        Request::Overlay(overlay) => mounted(overlay.mount()),
        Request::Tree { directory } => mounted(clone_tree(Path::new(directory))),
        Request::Size { path } => match Size::of(Path::new(path)) {
            Ok(size) => (Response::Size(size), None),
            Err(error) => (Response::Failed(error.into()), None),
        },
    }
}

fn refuse(connection: &OwnedFd, reason: &str) {
    let response = Response::Refused {
        reason: reason.to_owned(),
    };
    if let Err(error) = peer::send(connection, VERSION, &response, &[]) {
        info!(%error, "requester disconnected before the refusal");
    }
}
