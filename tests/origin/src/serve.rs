//! Connections: accepting, serving, closing, refusing.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::{Condvar, Mutex};
use rustix::net::sockopt::set_socket_linger;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::service::Service;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 4096;

/// A connection's socket, for faults that go below HTTP.
pub(crate) struct Connection {
    /// A duplicate, closed with the connection.
    socket: OwnedFd,
}

impl Connection {
    /// Makes the end of the connection a reset.
    pub(crate) fn reset_on_close(&self) {
        if let Err(error) = set_socket_linger(&self.socket, Some(std::time::Duration::ZERO)) {
            tracing::warn!(%error, "failed to make the end of a connection a reset");
        }
    }
}

/// The address of an origin. A second socket, bound and never listening, keeps the port while connections are
/// refused, so that no other process gets it.
pub(crate) struct Port {
    address: SocketAddr,
    _reservation: TcpSocket,
}

impl Port {
    pub(crate) fn reserve(address: SocketAddr) -> io::Result<Self> {
        let reservation = bound(address)?;
        Ok(Self {
            address: reservation.local_addr()?,
            _reservation: reservation,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn listen(&self) -> io::Result<TcpListener> {
        bound(self.address)?.listen(BACKLOG)
    }
}

fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Whether there is a listener, for those who wait for it to come or go.
#[derive(Debug, Default)]
pub(crate) struct Listening {
    now: Mutex<bool>,
    changed: Condvar,
}

impl Listening {
    fn set(&self, listening: bool) {
        *self.now.lock() = listening;
        self.changed.notify_all();
    }

    /// Blocks until it is so.
    pub(crate) fn wait(&self, listening: bool) {
        let mut now = self.now.lock();
        self.changed.wait_while(&mut now, |now| *now != listening);
    }
}

/// Serves until `stop`; while `reachable` is false there is no listener and no connection. `listening` follows it.
pub(crate) async fn run(
    service: Arc<Service>,
    port: Port,
    mut listener: TcpListener,
    mut reachable: watch::Receiver<bool>,
    listening: Arc<Listening>,
    stop: CancellationToken,
) {
    let serving = async {
        loop {
            listening.set(true);
            accept(&service, listener, &mut reachable).await;
            listening.set(false);
            if reachable.wait_for(|reachable| *reachable).await.is_err() {
                return;
            }
            listener = match port.listen() {
                Ok(listener) => listener,
                Err(error) => {
                    return tracing::error!(%error, address = %port.address(), "failed to listen again");
                }
            };
        }
    };
    tokio::select! {
        () = serving => {}
        () = stop.cancelled() => {}
    }
}

/// Serves connections until `reachable` is false; all of them are closed then.
async fn accept(service: &Arc<Service>, listener: TcpListener, reachable: &mut watch::Receiver<bool>) {
    let connections = TaskTracker::new();
    let close = CancellationToken::new();
    let _close_when_dropped = close.clone().drop_guard();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _unreachable = reachable.wait_for(|reachable| !reachable) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                service.counters.connection();
                let connection = serve(Arc::clone(service), stream);
                let close = close.clone();
                connections.spawn(async move {
                    tokio::select! {
                        () = connection => {}
                        () = close.cancelled() => {}
                    }
                });
            }
            Err(error) => tracing::warn!(%error, "failed to accept a connection"),
        }
    }
    drop(listener);
    close.cancel();
    connections.close();
    connections.wait().await;
}

async fn serve(service: Arc<Service>, stream: TcpStream) {
    let connection = match connection_of(&stream) {
        Ok(connection) => Arc::new(connection),
        Err(error) => return tracing::warn!(%error, "failed to prepare a connection"),
    };
    let requests = service_fn(|request| {
        let (service, connection) = (Arc::clone(&service), Arc::clone(&connection));
        async move { service.answer(&connection, request).await }
    });
    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), requests);
    if let Err(error) = serving.await {
        // Clients that leave and bodies that faults cut end here too.
        tracing::debug!(%error, "a connection ended");
    }
}

fn connection_of(stream: &TcpStream) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    Ok(Connection {
        socket: stream.as_fd().try_clone_to_owned()?,
    })
}
