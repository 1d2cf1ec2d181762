//! The keeper as a process of its own: servers connect to its socket.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tracing::{info, warn};

use super::holder::Holder;

/// The old server, the new one, and some that are just going.
const BACKLOG: i32 = 16;

/// How a keeper runs.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "millpond-keeper",
    version,
    about = "Holds the FUSE mounts of a node while its driver is away"
)]
pub struct KeeperOptions {
    /// Where servers connect
    #[arg(
        long,
        env = "MILLPOND_SOCKET",
        default_value = "/var/lib/millpond/keeper/keeper.sock"
    )]
    pub socket: PathBuf,
    /// How long mounts may be without a server before those who read them get errors, in seconds (`120` or `120s`)
    #[arg(long, env = "MILLPOND_LIMIT", default_value = "120s", value_parser = seconds)]
    pub limit: Duration,
}

/// Why a keeper does not listen.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} at {}", path.display())]
pub struct ListenError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Listens at the socket, for root only, and keeps what it is given. Returns only with an error.
///
/// # Errors
/// The socket cannot be made, or fails.
pub fn listen(options: &KeeperOptions) -> Result<(), ListenError> {
    let failed = |action| {
        let path = options.socket.clone();
        move |source| ListenError { action, path, source }
    };
    let socket = socket_at(&options.socket).map_err(failed("listen"))?;
    let holder = Holder::start(options.limit).map_err(failed("start to keep"))?;
    info!(socket = %options.socket.display(), limit = ?options.limit, "keeps what it is given");
    loop {
        let connected = match rustix::net::accept_with(&socket, SocketFlags::CLOEXEC) {
            Ok(connected) => connected,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => continue,
            Err(error) => return Err(failed("accept a server")(error.into())),
        };
        match getsockopt(&connected, PeerCredentials) {
            Ok(peer) if peer.uid() == rustix::process::geteuid().as_raw() => {
                holder.take_in(connected).map_err(failed("take in a server"))?;
            }
            Ok(peer) => warn!(uid = peer.uid(), "refused a connection of another user"),
            Err(error) => warn!(%error, "refused a connection of nobody"),
        }
    }
}

fn socket_at(path: &Path) -> io::Result<OwnedFd> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
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

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    match number.parse() {
        Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("{text:?} is not a number of seconds like 120s")),
    }
}
