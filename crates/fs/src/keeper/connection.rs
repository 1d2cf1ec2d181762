//! A server's line to a keeper that may be started anew at any time.

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

/// A keeper that restarts is away for some hundred milliseconds; nothing is kept meanwhile.
const RECONNECT_DELAY: Duration = Duration::from_millis(100);

/// A thread that waits for the keeper's end sees within this time that it is not wanted any more.
const LOOK_INTERVAL: Timespec = Timespec {
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
    /// Connects to the keeper at `socket`, waiting up to `patience` for one. Goes on without if there is none: what it held is
    /// lost then.
    pub async fn begin(socket: PathBuf, patience: Duration) -> Self {
        let mut line = Self {
            socket,
            client: Arc::new(KeeperClient::of_lasting()),
            watched: None,
        };
        let connected = tokio::time::timeout(patience, line.connect()).await;
        if connected.is_err() {
            warn!(socket = %line.socket.display(), "there is no keeper: mounts end with this process");
        }
        line
    }

    /// What is said over the line.
    pub fn client(&self) -> &Arc<KeeperClient> {
        &self.client
    }

    /// Notices when the keeper goes, and has everything given to the next one by `give_again`, until `stop`.
    pub async fn keep(mut self, give_again: impl Fn() + Send + Sync + 'static, stop: CancellationToken) {
        let give_again = Arc::new(give_again);
        let keep = async {
            loop {
                match self.watched.take() {
                    Some(watched) => {
                        if let Err(error) = gone(watched).await {
                            warn!(%error, "failed to watch the keeper");
                        }
                        warn!("the keeper is gone");
                        self.client.lost();
                    }
                    None => self.client.lost(),
                }
                self.connect().await;
                info!("gives everything to the keeper");
                let (again, client) = (Arc::clone(&give_again), Arc::clone(&self.client));
                let given = move || -> Result<(), KeeperError> {
                    again();
                    client.ready()
                };
                match tokio::task::spawn_blocking(given).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => warn!(%error, "failed to give everything to the keeper"),
                    Err(error) => warn!(%error, "failed to give everything to the keeper"),
                }
            }
        };
        // Ended only by `stop`.
        let _stopped: Option<()> = stop.run_until_cancelled(keep).await;
    }

    async fn connect(&mut self) {
        loop {
            match self.client.connect(&self.socket) {
                Ok(watched) => {
                    self.watched = Some(watched);
                    return;
                }
                Err(_nobody) => tokio::time::sleep(RECONNECT_DELAY).await,
            }
        }
    }
}

/// Waits until the other side of a connection is closed. A thread waits, and looks up from time to time.
async fn gone(socket: OwnedFd) -> io::Result<()> {
    let socket = Arc::new(socket);
    loop {
        let watched = Arc::clone(&socket);
        let waited = tokio::task::spawn_blocking(move || {
            // Only the end: answers are the client's.
            let mut polled = [PollFd::new(&*watched, PollFlags::RDHUP)];
            poll(&mut polled, Some(&LOOK_INTERVAL)).map(|ready| ready > 0)
        });
        match waited.await? {
            Ok(true) => return Ok(()),
            Ok(false) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
