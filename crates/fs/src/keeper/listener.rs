//! The keeper as a process of its own: servers connect to its socket.

use std::path::PathBuf;
use std::time::Duration;

use tracing::info;

use super::server::KeeperServer;
use crate::peer::{self, ListenError};

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

/// Listens at the socket, for root only, and keeps what it is given. Returns only with an error.
///
/// # Errors
/// The socket cannot be made, or fails.
pub fn listen(options: &KeeperOptions) -> Result<(), ListenError> {
    let failed = |action| ListenError::new(action, &options.socket);
    let socket = peer::listen(&options.socket).map_err(failed("listen"))?;
    let holder = KeeperServer::start(options.limit).map_err(failed("start to keep"))?;
    info!(socket = %options.socket.display(), limit = ?options.limit, "keeps what it is given");
    loop {
        let server = peer::accept(&socket).map_err(failed("accept a server"))?;
        holder.accept(server).map_err(failed("take in a server"))?;
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    match number.parse() {
        Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("{text:?} is not a number of seconds like 120s")),
    }
}
