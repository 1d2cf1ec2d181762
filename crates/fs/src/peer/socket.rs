//! Creating sockets, listening and connecting.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tracing::warn;

/// The predecessor, the successor, and some that are exiting.
const BACKLOG: i32 = 16;

/// Errors of a listener.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} at {}", path.display())]
pub struct ListenError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl ListenError {
    pub(crate) fn new(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

/// Creates two connected sockets.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

/// Listens at `path`, replacing a previous listener. Creates its directory.
pub(crate) fn listen(path: &Path) -> io::Result<OwnedFd> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let socket = socket()?;
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    rustix::net::bind(&socket, &SocketAddrUnix::new(&new)?)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
    rustix::net::listen(&socket, BACKLOG)?;
    std::fs::rename(&new, path)?;
    Ok(socket)
}

/// Waits for the next peer of this process's user; others are rejected.
pub(crate) fn accept(socket: impl AsFd) -> io::Result<OwnedFd> {
    loop {
        let connected = match rustix::net::accept_with(&socket, SocketFlags::CLOEXEC) {
            Ok(connected) => connected,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => continue,
            Err(error) => return Err(error.into()),
        };
        match getsockopt(&connected, PeerCredentials) {
            Ok(peer) if peer.uid() == rustix::process::geteuid().as_raw() => return Ok(connected),
            Ok(peer) => warn!(uid = peer.uid(), "rejected a connection of another user"),
            Err(error) => warn!(%error, "rejected a connection: peer credentials unavailable"),
        }
    }
}

/// Connects to the listener at `path`.
pub(crate) fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket()?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}
