//! A server's connection to a keeper that may restart at any time.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::client::KeeperClient;
use super::message::KeeperError;

/// Between two attempts to connect. A keeper restarts within some hundred milliseconds; no mount is kept meanwhile.
const RECONNECT_DELAY: Duration = Duration::from_millis(100);

/// A thread that waits for the keeper's exit ends within this time after its task was dropped.
const POLL_INTERVAL: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// See the module's documentation.
#[derive(Debug)]
pub struct KeeperConnection {
    socket: PathBuf,
    client: Arc<KeeperClient>,
    watched: Option<OwnedFd>,
}

impl KeeperConnection {
    /// Connects to the keeper at `socket`, waiting up to `timeout` for it. Continues without one after that: what it held
    /// cannot be taken over then.
    pub async fn open(socket: PathBuf, timeout: Duration) -> Self {
        let mut connection = Self {
            socket,
            client: Arc::new(KeeperClient::reconnecting()),
            watched: None,
        };
        let connected = tokio::time::timeout(timeout, connection.connect()).await;
        if connected.is_err() {
            warn!(socket = %connection.socket.display(), "keeper unreachable; mounts will not survive this process");
        }
        connection
    }

    /// The client of this connection.
    pub fn client(&self) -> &Arc<KeeperClient> {
        &self.client
    }

    /// Reconnects whenever the keeper exits, and registers everything with the next one by `reregister`, until `stop`.
    pub async fn run(mut self, reregister: impl Fn() + Send + Sync + 'static, stop: CancellationToken) {
        let reregister = Arc::new(reregister);
        let run = async {
            loop {
                match self.watched.take() {
                    Some(watched) => {
                        if let Err(error) = wait_closed(watched).await {
                            warn!(%error, "failed to watch the keeper");
                        }
                        warn!("keeper disconnected; reconnecting");
                        self.client.disconnected();
                    }
                    None => self.client.disconnected(),
                }
                self.connect().await;
                info!("registering all mounts with the keeper");
                let (register, client) = (Arc::clone(&reregister), Arc::clone(&self.client));
                let registered = move || -> Result<(), KeeperError> {
                    register();
                    client.ready()
                };
                match tokio::task::spawn_blocking(registered).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => warn!(%error, "failed to register all mounts with the keeper"),
                    Err(error) => warn!(%error, "failed to register all mounts with the keeper"),
                }
            }
        };
        // Only `stop` ends it.
        let _stopped: Option<()> = stop.run_until_cancelled(run).await;
    }

    async fn connect(&mut self) {
        loop {
            match self.client.connect(&self.socket) {
                Ok(watched) => {
                    self.watched = Some(watched);
                    return;
                }
                Err(_absent) => tokio::time::sleep(RECONNECT_DELAY).await,
            }
        }
    }
}

/// Waits until the peer has closed the connection. A thread waits, and checks every [`POLL_INTERVAL`] whether to stop.
async fn wait_closed(socket: OwnedFd) -> io::Result<()> {
    let socket = Arc::new(socket);
    loop {
        let watched = Arc::clone(&socket);
        let waited = tokio::task::spawn_blocking(move || {
            // Only the end: responses are the client's.
            let mut polled = [PollFd::new(&*watched, PollFlags::RDHUP)];
            poll(&mut polled, Some(&POLL_INTERVAL)).map(|ready| ready > 0)
        });
        match waited.await? {
            Ok(true) => return Ok(()),
            Ok(false) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
