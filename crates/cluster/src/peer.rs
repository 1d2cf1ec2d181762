//! The process at the other end of a connection, by its certificate.

use std::fmt;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The prefix of every name in a certificate of the authority.
const SCHEME: &str = "millpond://";

/// The maximum length of a DNS name, which a node's name is.
const MAX_NODE_BYTES: usize = 253;

/// The role of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A cache worker.
    Worker,
    /// A node's driver.
    Driver,
}

impl Role {
    /// Returns the name of the role.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Driver => "driver",
        }
    }
}

/// A node process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Its role.
    pub role: Role,
    /// The name of its node.
    pub node: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.role.as_str(), self.node)
    }
}

/// Why a certificate does not identify a node process.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PeerError {
    /// There is no certificate.
    #[error("the peer has presented no certificate")]
    Missing,
    /// It cannot be parsed.
    #[error("the certificate of the peer cannot be parsed: {reason}")]
    Unreadable {
        /// The cause.
        reason: String,
    },
    /// It does not name exactly one process.
    #[error("the certificate of the peer does not name exactly one node process")]
    Nameless,
}

impl Peer {
    /// Parses the name of a node process: `millpond://worker/NODE` or `millpond://driver/NODE`.
    ///
    /// # Errors
    /// It has another form.
    pub fn parse(name: &str) -> Result<Self, PeerError> {
        let (role, node) = name
            .strip_prefix(SCHEME)
            .and_then(|rest| rest.split_once('/'))
            .ok_or(PeerError::Nameless)?;
        let role = match role {
            "worker" => Role::Worker,
            "driver" => Role::Driver,
            _ => return Err(PeerError::Nameless),
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        if node.is_empty() || node.len() > MAX_NODE_BYTES || !node.bytes().all(allowed) {
            return Err(PeerError::Nameless);
        }
        Ok(Self {
            role,
            node: node.to_owned(),
        })
    }

    /// Returns the peer that has presented these certificates, the first of which TLS has verified.
    ///
    /// # Errors
    /// They do not name exactly one node process.
    pub fn of(certificates: &[CertificateDer<'_>]) -> Result<Self, PeerError> {
        let first = certificates.first().ok_or(PeerError::Missing)?;
        let unreadable = |reason: String| PeerError::Unreadable { reason };
        let (_, certificate) =
            X509Certificate::from_der(first).map_err(|error| unreadable(error.to_string()))?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| unreadable(error.to_string()))?
            .ok_or(PeerError::Nameless)?;
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        match (uris.next(), uris.next()) {
            (Some(name), None) => Self::parse(name),
            _ => Err(PeerError::Nameless),
        }
    }

    /// Returns the DNS name in the certificate of the process, which its clients verify.
    pub fn server_name(&self) -> String {
        format!("{}.{}.millpond.internal", self.node, self.role.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_name_parses_to_the_same_peer() {
        let peer = Peer {
            role: Role::Driver,
            node: "gpu-1.example".to_owned(),
        };
        assert_eq!(Peer::parse(&peer.to_string()), Ok(peer));
    }

    #[test]
    fn other_names_are_refused() {
        for name in [
            "",
            "millpond://",
            "millpond://worker/",
            "millpond://king/a",
            "spiffe://worker/a",
            "millpond://worker/a/b",
        ] {
            assert_eq!(Peer::parse(name), Err(PeerError::Nameless), "{name}");
        }
        assert_eq!(Peer::of(&[]), Err(PeerError::Missing));
    }
}
