//! HTTP clients, shared by all sources with equal settings: each client has its own connection pool and its own
//! copy of every root certificate, half a mebibyte and some milliseconds of work.
//!
//! A client holds nothing of a tenant: credentials are in each request. A source with an option for the client
//! itself, such as a proxy, which may hold a password, has a client of its own.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use object_store::client::{HttpClient, HttpConnector, ReqwestConnector};
use object_store::{ClientConfigKey, ClientOptions};
use parking_lot::Mutex;

use super::wire::Wire;

/// The clients of all sources that share them. Clones share one table; a client ends with its last source.
///
/// A client's connections belong to the runtime in which they were opened: they must not outlive it.
#[derive(Clone, Debug, Default)]
pub struct Clients(Arc<Mutex<HashMap<Traits, Weak<HttpClient>>>>);

/// All settings in which two shared clients can differ.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Traits {
    ca_certificates: Option<String>,
    /// Plain HTTP is allowed to some servers only.
    allow_http: Option<String>,
    /// object_store uses another one for metadata services.
    connect_timeout: Option<String>,
}

/// Creates the clients of one source, wrapped so that responses are read on the wire.
#[derive(Debug)]
pub(super) enum Connector {
    /// A client for this source alone.
    Own,
    /// A client shared with all sources that have the same certificates.
    Shared {
        clients: Clients,
        ca_certificates: Option<String>,
    },
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = match self {
            Self::Own => connect(options)?,
            Self::Shared {
                clients,
                ca_certificates,
            } => {
                let traits = Traits {
                    ca_certificates: ca_certificates.clone(),
                    allow_http: options.get_config_value(&ClientConfigKey::AllowHttp),
                    connect_timeout: options.get_config_value(&ClientConfigKey::ConnectTimeout),
                };
                clients.get(traits, options)?
            }
        };
        Ok(HttpClient::new(Wire::new(client)))
    }
}

impl Clients {
    fn get(&self, traits: Traits, options: &ClientOptions) -> object_store::Result<Arc<HttpClient>> {
        // Held while a client is created: a concurrent caller that needs the same one waits instead of creating
        // another.
        let mut clients = self.0.lock();
        if let Some(known) = clients.get(&traits).and_then(Weak::upgrade) {
            return Ok(known);
        }
        clients.retain(|_, client| client.strong_count() > 0);
        let made = connect(options)?;
        clients.insert(traits, Arc::downgrade(&made));
        Ok(made)
    }
}

fn connect(options: &ClientOptions) -> object_store::Result<Arc<HttpClient>> {
    Ok(Arc::new(ReqwestConnector::default().connect(options)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Clients {
        /// Returns the number of clients in use.
        pub(crate) fn count(&self) -> usize {
            let clients = self.0.lock();
            clients
                .values()
                .filter(|client| client.strong_count() > 0)
                .count()
        }
    }

    #[test]
    fn equal_clients_are_shared_and_end_with_their_last_source() {
        millpond_process::tls::install();
        let clients = Clients::default();
        let connector = |ca_certificates: Option<&str>| Connector::Shared {
            clients: clients.clone(),
            ca_certificates: ca_certificates.map(str::to_owned),
        };
        let plain = ClientOptions::new().with_allow_http(true);
        let first = connector(None).connect(&plain).unwrap();
        let second = connector(None).connect(&plain).unwrap();
        assert_eq!(clients.count(), 1);
        let third = connector(None).connect(&ClientOptions::new()).unwrap();
        let fourth = connector(Some("another")).connect(&plain).unwrap();
        let own = Connector::Own.connect(&plain).unwrap();
        assert_eq!(clients.count(), 3);
        drop((first, third, fourth, own));
        assert_eq!(clients.count(), 1);
        drop(second);
        assert_eq!(clients.count(), 0);
    }
}
