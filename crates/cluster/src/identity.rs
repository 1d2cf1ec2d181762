//! The identity of a process: a certificate, its key, and the authorities to trust.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The protocol of every connection: HTTP/2.
const PROTOCOL: &[u8] = b"h2";

/// Why an identity is invalid.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A part is not PEM, or not of its kind.
    #[error("failed to read the {part} of an identity: {reason}")]
    Unreadable {
        /// `certificate`, `key` or `authorities`.
        part: &'static str,
        /// The cause.
        reason: String,
    },
    /// The key does not belong to the certificate, or TLS refuses them.
    #[error("failed to use an identity for TLS")]
    Tls(#[from] rustls::Error),
    /// The authorities cannot verify the certificates of peers.
    #[error("failed to use an identity's authorities")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Whether clients must present a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertPolicy {
    /// A connection without one is refused.
    Required,
    /// A connection without one is accepted, to request one.
    Optional,
}

/// The certificate and key of a process, and the authorities that it trusts.
pub struct Identity {
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    authorities: Arc<RootCertStore>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        f.debug_struct("Identity")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads an identity from its parts in PEM.
    ///
    /// # Errors
    /// A part is invalid.
    pub fn from_pem(certificate: &str, key: &str, authorities: &str) -> Result<Self, IdentityError> {
        let certificates = read_certificates("certificate", certificate)?;
        let first = certificates.first().ok_or(IdentityError::Unreadable {
            part: "certificate",
            reason: "it is empty".to_owned(),
        })?;
        let (not_before, not_after) = validity(first)?;
        let key =
            PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| IdentityError::Unreadable {
                part: "key",
                reason: error.to_string(),
            })?;
        Ok(Self {
            certificates,
            key,
            authorities: Arc::new(read_authorities(authorities)?),
            not_before,
            not_after,
        })
    }

    /// Returns when the certificate expires.
    pub const fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Returns when to renew the certificate: after two thirds of its lifetime.
    pub fn renew_at(&self) -> SystemTime {
        let lifetime = self.not_after.duration_since(self.not_before);
        self.not_before + lifetime.unwrap_or(Duration::ZERO) * 2 / 3
    }

    /// Returns the TLS configuration of outgoing connections.
    ///
    /// # Errors
    /// The key does not belong to the certificate.
    pub fn client_config(&self) -> Result<ClientConfig, IdentityError> {
        let config = ClientConfig::builder()
            .with_root_certificates(Arc::clone(&self.authorities))
            .with_client_auth_cert(self.certificates.clone(), self.key.clone_key())?;
        Ok(with_protocol(config))
    }

    /// Returns the TLS configuration of incoming connections.
    ///
    /// # Errors
    /// The key does not belong to the certificate, or there are no authorities.
    pub fn server_config(&self, clients: ClientCertPolicy) -> Result<ServerConfig, IdentityError> {
        let verifier = WebPkiClientVerifier::builder(Arc::clone(&self.authorities));
        let verifier = match clients {
            ClientCertPolicy::Required => verifier,
            ClientCertPolicy::Optional => verifier.allow_unauthenticated(),
        };
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(verifier.build()?)
            .with_single_cert(self.certificates.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(config)
    }
}

/// Returns the TLS configuration of outgoing connections of a process without a certificate.
pub(crate) fn anonymous_config(authorities: &str) -> Result<ClientConfig, IdentityError> {
    let config = ClientConfig::builder()
        .with_root_certificates(read_authorities(authorities)?)
        .with_no_client_auth();
    Ok(with_protocol(config))
}

fn with_protocol(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config
}

fn read_certificates(part: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| IdentityError::Unreadable {
            part,
            reason: error.to_string(),
        })
}

fn read_authorities(pem: &str) -> Result<RootCertStore, IdentityError> {
    let mut store = RootCertStore::empty();
    for certificate in read_certificates("authorities", pem)? {
        store.add(certificate)?;
    }
    if store.is_empty() {
        return Err(IdentityError::Unreadable {
            part: "authorities",
            reason: "there is none".to_owned(),
        });
    }
    Ok(store)
}

fn validity(certificate: &CertificateDer<'_>) -> Result<(SystemTime, SystemTime), IdentityError> {
    let (_, certificate) =
        X509Certificate::from_der(certificate).map_err(|error| IdentityError::Unreadable {
            part: "certificate",
            reason: error.to_string(),
        })?;
    let time =
        |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let validity = certificate.validity();
    Ok((
        time(validity.not_before.timestamp()),
        time(validity.not_after.timestamp()),
    ))
}
