//! How an origin is started.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

/// An access key and its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The access key's id.
    pub access_key: String,
    /// The secret, of which signatures are made.
    pub secret_key: String,
}

impl Credentials {
    /// Credentials of these two strings.
    pub fn new(access_key: impl Into<String>, secret_key: impl Into<String>) -> Self {
        Self {
            access_key: access_key.into(),
            secret_key: secret_key.into(),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key", &self.access_key)
            .finish_non_exhaustive()
    }
}

/// The options of [`Origin::start`](crate::Origin::start) and [`Origin::spawn`](crate::Origin::spawn).
#[derive(Debug, Clone)]
pub struct OriginOptions {
    /// Who may ask, by signature version 4. `None`: every client; signatures are not checked.
    pub credentials: Option<Credentials>,
    /// Where to listen; port 0 takes a free one. Default: a free port of the loopback.
    pub address: SocketAddr,
    /// Threads of [`Origin::spawn`](crate::Origin::spawn)'s runtime. Default: 2.
    pub threads: usize,
}

impl Default for OriginOptions {
    fn default() -> Self {
        Self {
            credentials: None,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            threads: 2,
        }
    }
}

impl OriginOptions {
    /// Demands signatures of these credentials.
    #[must_use]
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        Self {
            credentials: Some(credentials),
            ..self
        }
    }

    /// Listens at this address.
    #[must_use]
    pub fn with_address(self, address: SocketAddr) -> Self {
        Self { address, ..self }
    }

    /// Serves with this many threads (of a spawned origin).
    #[must_use]
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads, ..self }
    }
}
