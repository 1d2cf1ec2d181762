//! Connections to a worker.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use millpond_cluster::{ConnectError, Identity, IdentityError, Peer, Role};
use millpond_wire::worker::worker_client::WorkerClient;
use rand::seq::SliceRandom;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

use crate::node::{MemberAddress, PoolOnNode};

/// Largest response: a block and its frame.
const MAX_MESSAGE_BYTES: usize = 8 << 20;

/// Flow-control window of each response over a socket of the node.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Location of workers.
#[derive(Clone, Debug)]
pub enum WorkerLocation {
    /// On this node, at this socket.
    Here(PathBuf),
    /// On any of the pool's nodes, over the network.
    Elsewhere {
        /// Workers of the pool, with changes.
        pool: watch::Receiver<PoolOnNode>,
        /// Identity of this driver towards them.
        identity: watch::Receiver<Option<Arc<Identity>>>,
    },
}

#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("failed to connect to {}", socket.display())]
    Socket {
        socket: PathBuf,
        #[source]
        source: tonic::transport::Error,
    },
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("no worker of the pool has an address")]
    NoWorker,
    #[error("this node has no certificate yet")]
    NoIdentity,
}

impl WorkerLocation {
    /// Connects to a worker.
    pub(super) async fn dial(&self) -> Result<WorkerClient<Channel>, DialError> {
        let channel = match self {
            Self::Here(socket) => dial_socket(socket.clone()).await?,
            Self::Elsewhere { pool, identity } => {
                let members = pool.borrow().members.clone();
                let identity = identity.borrow().clone().ok_or(DialError::NoIdentity)?;
                dial_any(members, &identity).await?
            }
        };
        Ok(WorkerClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// Waits until the workers' addresses have changed.
    pub(super) async fn moved(&mut self) {
        let moved = match self {
            Self::Here(_) => None,
            Self::Elsewhere { pool, .. } => pool.changed().await.ok(),
        };
        if moved.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Dials in random order: nodes without a worker must not all choose the same one.
async fn dial_any(mut members: Vec<MemberAddress>, identity: &Identity) -> Result<Channel, DialError> {
    members.shuffle(&mut rand::rng());
    let mut last = DialError::NoWorker;
    for MemberAddress { node, address } in members {
        // A worker that has no address yet.
        let Ok(address) = address.parse::<SocketAddr>() else {
            continue;
        };
        let peer = Peer {
            role: Role::Worker,
            node,
        };
        match millpond_cluster::connect(address, &peer.server_name(), identity.client_config()?).await {
            Ok(channel) => return Ok(channel),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

async fn dial_socket(socket: PathBuf) -> Result<Channel, DialError> {
    let path = socket.clone();
    let dial = tower::service_fn(move |_| {
        let path = path.clone();
        async move { io::Result::Ok(TokioIo::new(UnixStream::connect(path).await?)) }
    });
    // A placeholder: the connector opens the socket's path.
    Endpoint::from_static("http://worker.millpond.internal")
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect_with_connector(dial)
        .await
        .map_err(|source| DialError::Socket { socket, source })
}
