//! HTTP clients, one for all sources whose clients would be alike: each has its own pool of connections and its own copy of
//! every root certificate, half a mebibyte and some milliseconds of work.
//!
//! What distinguishes tenants is not in a client: credentials are in each request. A source with an option for its client
//! itself, such as a proxy, which may hold a password, has a client of its own.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use object_store::client::{HttpClient, HttpConnector, ReqwestConnector};
use object_store::{ClientConfigKey, ClientOptions};
use parking_lot::Mutex;

use super::wire::Wire;

/// The clients of all sources that share them. Clones are the same; a client ends with the last source that has it.
///
/// A client's connections belong to the runtime in which they were opened: these must not outlive it.
#[derive(Clone, Debug, Default)]
pub struct Clients(Arc<Mutex<HashMap<Traits, Weak<HttpClient>>>>);

/// All that two clients can differ in whose sources have no option for them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Traits {
    ca_certificates: Option<String>,
    /// Plain HTTP is allowed to some servers only.
    allow_http: Option<String>,
    /// object_store has another for metadata services.
    connect_timeout: Option<String>,
}

/// Makes the clients of one source, which look at answers.
#[derive(Debug)]
pub(super) enum Connector {
    /// Alone.
    Own,
    /// With all whose certificates are the same.
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
        // Kept while a client is made: whoever wants the same waits for it instead of making another.
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
        /// How many are in use.
        pub(crate) fn count(&self) -> usize {
            let clients = self.0.lock();
            clients
                .values()
                .filter(|client| client.strong_count() > 0)
                .count()
        }
    }

    #[test]
    fn clients_that_would_be_alike_are_one_and_end_with_their_last_source() {
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
