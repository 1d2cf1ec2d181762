//! Opens channels to other processes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

/// Connecting takes one round trip and a handshake; a dead node does not respond at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The interval of HTTP/2 pings, and the timeout of each.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Flow control windows: of a stream a block with its frame, of a connection four of them.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Why no channel was opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// An address has no name or port.
    #[error("{address:?} is not an address of the form host:port")]
    Address {
        /// The invalid address.
        address: String,
    },
    /// A name has no address.
    #[error("failed to find the address of {address}")]
    Resolve {
        /// The address.
        address: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The other side does not respond, or has another certificate.
    #[error("failed to connect to {address}")]
    Connect {
        /// The address.
        address: String,
        /// The cause.
        #[source]
        source: tonic::transport::Error,
    },
}

/// The controller's address: that of a headless Service, which resolves to all replicas.
#[derive(Clone, Debug)]
pub struct Controller {
    address: String,
    host: String,
}

impl Controller {
    /// Parses `host:port`. The certificate of a replica must be for the host.
    ///
    /// # Errors
    /// It is not of that form.
    pub fn new(address: &str) -> Result<Self, ConnectError> {
        let invalid = || ConnectError::Address {
            address: address.to_owned(),
        };
        let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(invalid());
        }
        Ok(Self {
            address: address.to_owned(),
            host: host.to_owned(),
        })
    }

    /// Resolves the addresses of all replicas.
    pub(crate) async fn replicas(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        let failed = |source| ConnectError::Resolve {
            address: self.address.clone(),
            source,
        };
        let found = tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::lookup_host(&self.address)).await;
        let found = found.map_err(|_elapsed| failed(io::ErrorKind::TimedOut.into()))?;
        Ok(found.map_err(failed)?.collect())
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }
}

/// Connects to `address`, whose certificate must be for `server_name`.
///
/// # Errors
/// The other side does not respond in time, or has another certificate.
pub async fn connect(
    address: SocketAddr,
    server_name: &str,
    config: ClientConfig,
) -> Result<Channel, ConnectError> {
    let name = ServerName::try_from(server_name.to_owned()).map_err(|_invalid| ConnectError::Address {
        address: server_name.to_owned(),
    })?;
    let connector = TlsConnector::from(Arc::new(config));
    let dial = tower::service_fn(move |_| {
        let (connector, name) = (connector.clone(), name.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            io::Result::Ok(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    let failed = |source| ConnectError::Connect {
        address: address.to_string(),
        source,
    };
    // A placeholder: the connector has the address.
    Endpoint::from_static("http://millpond.internal")
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect_with_connector(dial)
        .await
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_host_and_port() {
        assert_eq!(
            Controller::new("millpond.ns.svc:7400").unwrap().host(),
            "millpond.ns.svc"
        );
        for wrong in ["millpond", ":7400", "millpond:", "millpond:x"] {
            assert!(Controller::new(wrong).is_err(), "{wrong}");
        }
    }
}
