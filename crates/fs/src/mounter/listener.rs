//! The mounter as a process of its own.

use std::path::PathBuf;

use nix::sys::signal::{SigSet, Signal};
use tracing::info;

use super::server::serve;
use crate::peer::{self, ListenError};

/// The options of a mounter.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "millpond-mounter",
    version,
    about = "Performs the mounts of a driver that could wait for that driver"
)]
pub struct MounterOptions {
    /// Where the driver connects
    #[arg(
        long,
        env = "MILLPOND_SOCKET",
        default_value = "/run/millpond-mounter/mounter.sock"
    )]
    pub socket: PathBuf,
}

/// Listens at the socket, for root only, and serves requests. SIGTERM and SIGINT end the process: a request
/// that waits then continues until its FUSE mount has a server again. Returns only with an error.
///
/// # Errors
/// The socket cannot be created, or fails.
pub fn listen(options: &MounterOptions) -> Result<(), ListenError> {
    let failed = |action| ListenError::new(action, &options.socket);
    // The first process of a container receives only signals that it waits for or handles.
    let ends = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    ends.thread_block()
        .map_err(std::io::Error::from)
        .map_err(failed("wait for signals"))?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let code = i32::from(ends.wait().is_err());
            std::process::exit(code)
        })
        .map_err(failed("wait for signals"))?;
    let listening = peer::listen(&options.socket).map_err(failed("listen"))?;
    info!(socket = %options.socket.display(), "mounter listening");
    Err(failed("accept a request")(serve(&listening)))
}
