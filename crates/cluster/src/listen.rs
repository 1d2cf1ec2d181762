//! Accepts connections from other processes, each with its peer.
//!
//! A handshake is aborted after [`HANDSHAKE_TIMEOUT`], and at most [`MAX_CONCURRENT_HANDSHAKES`] are in progress: a peer that
//! connects and sends nothing does not block others for longer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use crate::identity::{ClientCertPolicy, Identity};
use crate::peer::{Peer, PeerError};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_CONCURRENT_HANDSHAKES: usize = 64;

/// The delay before another `accept` after an error, which is mostly a lack of descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// The peer of a connection. It is in the extensions of each request of the connection.
#[derive(Clone, Debug)]
pub struct ConnectedPeer(pub Result<Peer, PeerError>);

/// A connection with its peer.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: ConnectedPeer,
}

/// The accepted connections, for a tonic server.
#[derive(Debug)]
pub struct Incoming {
    ready: mpsc::Receiver<Connection>,
    accepting: JoinHandle<()>,
}

impl Incoming {
    /// Accepts connections at `listener`, each with the newest identity; they wait while there is none. Ends when dropped.
    pub fn new(
        listener: TcpListener,
        identity: watch::Receiver<Option<Arc<Identity>>>,
        clients: ClientCertPolicy,
    ) -> Self {
        let (sender, ready) = mpsc::channel(1);
        #[expect(clippy::disallowed_methods, reason = "aborted when this is dropped")]
        let accepting = tokio::spawn(accept(listener, identity, clients, sender));
        Self { ready, accepting }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(context).map(|next| next.map(Ok))
    }
}

async fn accept(
    listener: TcpListener,
    mut identity: watch::Receiver<Option<Arc<Identity>>>,
    clients: ClientCertPolicy,
    ready: mpsc::Sender<Connection>,
) {
    let mut handshakes = JoinSet::new();
    loop {
        if identity.wait_for(Option::is_some).await.is_err() {
            return;
        }
        while handshakes.len() >= MAX_CONCURRENT_HANDSHAKES {
            handshakes.join_next().await;
        }
        while handshakes.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                continue;
            }
        };
        let Some(identity) = identity.borrow().clone() else {
            continue;
        };
        let ready = ready.clone();
        handshakes.spawn(async move {
            let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake(stream, &identity, clients));
            match handshake.await {
                // A failure to send means that the server has ended.
                Ok(Ok(connection)) => drop(ready.send(connection).await),
                Ok(Err(error)) => debug!(%error, "TLS handshake failed"),
                Err(_elapsed) => debug!("TLS handshake timed out"),
            }
        });
    }
}

async fn handshake(
    stream: TcpStream,
    identity: &Identity,
    clients: ClientCertPolicy,
) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let config = identity.server_config(clients).map_err(io::Error::other)?;
    let stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
    let certificates: &[CertificateDer<'_>] = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = ConnectedPeer(Peer::of(certificates));
    Ok(Connection { stream, peer })
}

impl Connected for Connection {
    type ConnectInfo = ConnectedPeer;

    fn connect_info(&self) -> ConnectedPeer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
