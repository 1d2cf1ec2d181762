//! The keeper as a process of its own: servers connect to its socket.

use std::path::PathBuf;
use std::time::Duration;

use tracing::info;

use super::server::KeeperServer;
use crate::peer::{self, ListenError};

/// The options of a keeper.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "millpond-keeper",
    version,
    about = "Keeps the FUSE mounts of a node while its driver restarts"
)]
pub struct KeeperOptions {
    /// Where servers connect
    #[arg(
        long,
        env = "MILLPOND_SOCKET",
        default_value = "/var/lib/millpond/keeper/keeper.sock"
    )]
    pub socket: PathBuf,
    /// How long mounts may be without a server before their connections are aborted and reads fail, in seconds (`120s`)
    #[arg(long, alias = "limit", env = "MILLPOND_LIMIT", default_value = "120s", value_parser = seconds)]
    pub server_absence_timeout: Duration,
}

/// Listens at the socket, for root only, and holds the mounts that servers register. Returns only with an error.
///
/// # Errors
/// The socket cannot be created, or fails.
pub fn listen(options: &KeeperOptions) -> Result<(), ListenError> {
    let failed = |action| ListenError::new(action, &options.socket);
    let socket = peer::listen(&options.socket).map_err(failed("listen"))?;
    let keeper = KeeperServer::start(options.server_absence_timeout).map_err(failed("start the keeper"))?;
    info!(socket = %options.socket.display(), timeout = ?options.server_absence_timeout, "keeper listening");
    loop {
        let server = peer::accept(&socket).map_err(failed("accept a server"))?;
        keeper.accept(server).map_err(failed("take in a server"))?;
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    match number.parse() {
        Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("{text:?} is not a number of seconds like 120s")),
    }
}
