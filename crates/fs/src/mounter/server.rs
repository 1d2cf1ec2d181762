//! The mounter's side.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use tracing::{error, info, warn};

use super::message::{Answer, Request, VERSION};
use crate::mount::{DetachedMount, MountError, Size, clone_tree};
use crate::peer::{self, ListenError, MessageError};

/// Requests at a time: a server makes one mount at a time for each Dataset, and looks at few volumes at once. What is
/// beyond that waits for a FUSE mount that nobody serves, and more of it would be of no use.
const MAX_REQUESTS: usize = 64;

/// Whoever connects asks at once.
const REQUEST_READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves at `socket`, on threads of this process, for as long as it lives.
///
/// The threads have a table of descriptors of their own, with what was open before and none of what the process opens
/// later: one that waits for a FUSE mount while the process is killed does not keep that mount's device open.
///
/// # Errors
/// The socket or the thread cannot be made.
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
        // Whoever started this waits for it.
        drop(begun.send(Ok(())));
        let error = serve(&listening);
        error!(%error, "the mounter ends: nothing can be mounted any more");
    };
    let failed = |action| ListenError::new(action, socket);
    std::thread::Builder::new()
        .name("mounter".to_owned())
        .spawn(run)
        .map_err(failed("start the mounter's thread"))?;
    let begun = beginning.recv().map_err(io::Error::other).flatten();
    begun.map_err(failed("listen"))
}

/// Answers whoever connects, each on a thread of its own. Returns only with an error.
pub(super) fn serve(listening: &OwnedFd) -> io::Error {
    let requests = Arc::new(());
    loop {
        let line = match peer::accept(listening) {
            Ok(line) => line,
            Err(error) => return error,
        };
        // One is this function's.
        if Arc::strong_count(&requests) > MAX_REQUESTS {
            warn!("too many requests wait: one more is refused");
            refuse(&line, "too many requests wait");
            continue;
        }
        let request = Arc::clone(&requests);
        let answering = std::thread::Builder::new()
            .name("mount".to_owned())
            .spawn(move || {
                answer(line);
                drop(request);
            });
        if let Err(error) = answering {
            warn!(%error, "failed to start a thread for a request");
        }
    }
}

/// Answers the one question that comes over `line`.
fn answer(line: OwnedFd) {
    let (answer, mount) = match receive(&line) {
        Ok(request) => perform(&request),
        Err(MessageError::Closed) => return,
        Err(error) => {
            warn!(%error, "refused a request that is none");
            return refuse(&line, &error.to_string());
        }
    };
    let descriptors: Vec<_> = mount.iter().map(AsFd::as_fd).collect();
    if let Err(error) = peer::send(&line, VERSION, &answer, &descriptors) {
        info!(%error, "whoever asked is gone: what was mounted for it ends");
    }
    // Before the line is closed: from then on the mount is the other side's alone.
    drop(mount);
}

fn receive(line: &OwnedFd) -> Result<Request, MessageError> {
    set_socket_timeout(line, Timeout::Recv, Some(REQUEST_READ_TIMEOUT)).map_err(io::Error::from)?;
    let (request, descriptors) = peer::receive::<Request>(line, VERSION)?;
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

fn perform(request: &Request) -> (Answer, Option<DetachedMount>) {
    let mounted = |mount: Result<DetachedMount, MountError>| match mount {
        Ok(mount) => (Answer::Mounted, Some(mount)),
        Err(error) => (Answer::Failed(error.into()), None),
    };
    match request {
        Request::Overlay(overlay) => mounted(overlay.mount()),
        Request::Tree { directory } => mounted(clone_tree(Path::new(directory))),
        Request::Size { path } => match Size::of(Path::new(path)) {
            Ok(size) => (Answer::Size(size), None),
            Err(error) => (Answer::Failed(error.into()), None),
        },
    }
}

fn refuse(line: &OwnedFd, reason: &str) {
    let answer = Answer::Refused {
        reason: reason.to_owned(),
    };
    if let Err(error) = peer::send(line, VERSION, &answer, &[]) {
        info!(%error, "whoever was refused is gone");
    }
}
