//! The unix socket of the node.
//!
//! The kernel reports the uid of the connecting process: only root, the driver's user, is accepted. So a pod that reaches
//! the socket through a host directory cannot use it.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::server::Connected;
use tracing::warn;

/// Marker of a driver of this node, in the extensions of each request over the socket.
#[derive(Clone, Copy, Debug)]
pub struct LocalPeer;

/// Connection over the socket.
#[derive(Debug)]
pub struct LocalConnection(UnixStream);

/// Accepted connections, for a tonic server.
#[derive(Debug)]
pub struct LocalIncoming {
    listener: UnixListener,
    /// Accepted uid besides root.
    also: u32,
}

impl LocalIncoming {
    /// Listens at `path`. A previous worker's socket is replaced.
    ///
    /// # Errors
    /// If the directory does not exist, or is not writable.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self {
            listener,
            also: rustix::process::geteuid().as_raw(),
        })
    }
}

impl Stream for LocalIncoming {
    type Item = io::Result<LocalConnection>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let stream = match ready!(self.listener.poll_accept(context)) {
                Ok((stream, _)) => stream,
                Err(error) => return Poll::Ready(Some(Err(error))),
            };
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == 0 || peer.uid() == self.also => {
                    return Poll::Ready(Some(Ok(LocalConnection(stream))));
                }
                Ok(peer) => warn!(
                    uid = peer.uid(),
                    "rejected a connection: only root and the worker's user may connect"
                ),
                Err(error) => warn!(%error, "rejected a connection: peer credentials unavailable"),
            }
        }
    }
}

impl Connected for LocalConnection {
    type ConnectInfo = LocalPeer;

    fn connect_info(&self) -> LocalPeer {
        LocalPeer
    }
}

impl AsyncRead for LocalConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for LocalConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
